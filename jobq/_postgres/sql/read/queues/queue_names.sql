-- Returns the names of queues that have ready jobs, a row, or a worker that serves them by name, as
-- suggestions.
-- Plan: a loose index scan hops over job_claim_idx from one queue to the next.
WITH RECURSIVE lane AS (
    (SELECT job.queue FROM {schema}.job WHERE job.state = 'ready' ORDER BY job.queue LIMIT 1)
    UNION ALL
    SELECT following.queue
    FROM lane
    CROSS JOIN LATERAL (
        SELECT job.queue FROM {schema}.job
        WHERE job.state = 'ready' AND job.queue > lane.queue
        ORDER BY job.queue LIMIT 1
    ) AS following
), few AS (
    SELECT queue FROM lane LIMIT 1000
)
SELECT queue AS name FROM few
UNION SELECT name FROM {schema}.queue
UNION SELECT unnest(queues) FROM {schema}.worker
ORDER BY name
LIMIT 1000
