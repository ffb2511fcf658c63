-- One queue's depth, each count up to `bound`, and who paused it.
-- Plan: the lanes' ranges of job_claim_idx, job_running_idx, the newest entries of the failed partitions' job_history_id_idx.
SELECT
    sum(depth.ready)::integer AS ready, sum(depth.scheduled)::integer AS scheduled,
    (SELECT count(*) FROM (SELECT queue FROM {schema}.job WHERE state = 'running' LIMIT %(bound)s) AS entry
     WHERE entry.queue = %(queue)s)::integer AS running,
    (SELECT count(*) FROM (SELECT queue FROM {schema}.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT %(bound)s) AS entry
     WHERE entry.queue = %(queue)s)::integer AS failed,
    extract(epoch FROM now() - min(depth.oldest))::double precision AS oldest_ready_seconds,
    (SELECT paused_at FROM {schema}.queue WHERE name = %(queue)s) AS paused_at,
    (SELECT paused_by FROM {schema}.queue WHERE name = %(queue)s) AS paused_by,
    (SELECT pause_reason FROM {schema}.queue WHERE name = %(queue)s) AS pause_reason,
    EXISTS (SELECT FROM {schema}.queue WHERE name = %(queue)s) AS has_row,
    now() AS read_at
FROM generate_series(0, 9) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
                  AND job.run_at <= statement_timestamp()
                ORDER BY job.run_at LIMIT %(bound)s) AS entry) AS ready,
           (SELECT count(*) FROM (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
                  AND job.run_at > statement_timestamp()
                ORDER BY job.run_at LIMIT %(bound)s) AS entry) AS scheduled,
           (SELECT job.run_at FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
              AND job.run_at <= statement_timestamp()
            ORDER BY job.run_at LIMIT 1) AS oldest
) AS depth
