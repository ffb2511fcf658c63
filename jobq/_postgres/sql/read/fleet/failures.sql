-- Returns the latest dead letters: their ids, and when they failed, in microseconds since 1970.
-- Plan: the newest entries of the failed partitions' job_history_finished_idx, merged.
SELECT id, (extract(epoch FROM finished_at) * 1000000)::bigint AS micros
FROM {schema}.job_history
WHERE state = 'failed'
ORDER BY finished_at DESC, id DESC
LIMIT %(reach)s
