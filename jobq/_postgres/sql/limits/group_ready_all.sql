-- Makes each group of the queue with waiting jobs ready: more of them may start than at the last
-- look. A ready group without such a job costs only a look. Returns the number of groups.
-- Plan: a loose index scan hops over job_waiting_idx or job_waiting_due_idx from one group to the next; no Sort.
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
), given AS (
    INSERT INTO {schema}.group_ready (queue, group_key) SELECT %(queue)s::text, one.group_key FROM one
    RETURNING 1
)
SELECT count(*) FROM given
