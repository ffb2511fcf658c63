-- Returns the actor that paused the queue, and how many of its due jobs are claimed before this
-- one, counted up to `bound`: jobs of higher priority, then jobs that are due earlier.
-- Plan: the beginnings of the lanes' ranges of job_claim_idx.
SELECT coalesce(sum(lane.number), 0)::bigint AS ahead,
       (SELECT paused_at FROM {schema}.queue WHERE name = %(queue)s) AS paused_at,
       (SELECT paused_by FROM {schema}.queue WHERE name = %(queue)s) AS paused_by,
       (SELECT pause_reason FROM {schema}.queue WHERE name = %(queue)s) AS pause_reason
FROM (
    SELECT count(*) AS number
    FROM generate_series(%(priority)s::integer + 1, 9) AS higher (priority)
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job
        WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = higher.priority::smallint
          AND job.run_at <= statement_timestamp()
        ORDER BY job.run_at LIMIT %(bound)s
    ) AS entry
    UNION ALL
    SELECT count(*) AS number
    FROM (
        SELECT FROM {schema}.job
        WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = %(priority)s::smallint
          AND (job.run_at, job.id) < (%(run_at)s::timestamptz, %(id)s)
        ORDER BY job.run_at, job.id LIMIT %(bound)s
    ) AS entry
) AS lane
