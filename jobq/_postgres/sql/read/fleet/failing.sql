-- Counts dead letters: all of them, those that failed in the last 24 hours (among the newest
-- `bound` by id), and, for the last hour, how many jobs finished and how many of them failed, as
-- counted by the rollup.
-- Plan: the newest entries of the failed partitions' job_history_id_idx; the last hour's range of rollup_queue_pkey.
SELECT dead.number::integer AS number, dead.recent::integer AS recent, hour.finished::bigint AS finished_hour, hour.failed::bigint AS failed_hour
FROM (
    SELECT count(*) AS number, count(*) FILTER (WHERE entry.finished_at > now() - interval '24 hours') AS recent
    FROM (SELECT finished_at FROM {schema}.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT %(bound)s) AS entry
) AS dead
CROSS JOIN (
    SELECT coalesce(sum(succeeded + failed + cancelled + expired), 0) AS finished, coalesce(sum(failed), 0) AS failed
    FROM {schema}.rollup_queue WHERE span = 60 AND queue = '' AND at >= now() - interval '1 hour'
) AS hour
