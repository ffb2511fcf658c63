-- Returns the groups of a queue with waiting jobs, largest first: those with the most jobs among
-- `bound` groups. About `budget` jobs are counted in all, so each group is counted up to
-- `counted_to`. `waiting` counts as far, too; `running` and `limit_of` are only for the first
-- `most` groups.
-- Plan: a loose index scan hops over job_waiting_idx or job_waiting_due_idx from one group to the next and counts entries of
-- its range; job_limited_idx and rate_state_pkey for those shown.
WITH RECURSIVE one AS (
    (SELECT job.group_key FROM {schema}.job
     WHERE job.state = 'waiting' AND job.queue = %(queue)s::text AND job.group_key IS NOT NULL
     ORDER BY job.queue, job.group_key LIMIT 1)
    UNION ALL
    SELECT following.group_key
    FROM one
    CROSS JOIN LATERAL (
        SELECT job.group_key FROM {schema}.job
        WHERE job.state = 'waiting' AND job.queue = %(queue)s::text AND job.group_key > one.group_key
        ORDER BY job.queue, job.group_key LIMIT 1
    ) AS following
), few AS MATERIALIZED (
    SELECT group_key FROM one LIMIT %(bound)s::integer
), cap AS MATERIALIZED (
    SELECT count(*) AS number, least(%(bound)s::integer, %(budget)s::integer / greatest(count(*), 1) + 1) AS entries FROM few
), largest AS MATERIALIZED (
    SELECT few.group_key, counted.number
    FROM few
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM {schema}.job
            WHERE job.state = 'waiting' AND job.queue = %(queue)s::text AND job.group_key = few.group_key
            ORDER BY job.id LIMIT (SELECT entries FROM cap)
        ) AS entry
    ) AS counted
    ORDER BY counted.number DESC, few.group_key
    LIMIT %(most)s::integer
)
SELECT largest.group_key AS key, largest.number::integer AS waiting, cap.number::integer AS groups,
       cap.entries::integer - 1 AS counted_to,
       (SELECT count(*) FROM (
            SELECT FROM {schema}.job
            WHERE job.state = 'running' AND job.limited AND job.queue = %(queue)s::text AND job.group_key = largest.group_key
            ORDER BY job.queue, job.group_key LIMIT (SELECT entries FROM cap)) AS entry)::integer AS running,
       rate_state.max_running AS limit_of
FROM largest
CROSS JOIN cap
LEFT JOIN {schema}.rate_state ON rate_state.queue = %(queue)s::text AND rate_state.group_key = largest.group_key
ORDER BY largest.number DESC, largest.group_key
