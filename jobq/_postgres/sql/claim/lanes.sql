-- Returns the lanes (queue, priority) after a given one that have ready jobs, each with its first
-- job, due or later. It returns at most `most` lanes, so that reading all lanes never blocks
-- anything for long. A loose index scan from the beginning of each lane: one descent of
-- job_claim_idx per lane, whatever the backlog. It walks over the dead entries before a lane's
-- first job.
-- Columns: queue, priority, run_at in microseconds since 1970, id, and the seconds until it is due
-- (0 or less: now).
-- Plan: Index Only Scan using job_claim_idx, in a recursion; no Sort, no Seq Scan on job.
WITH RECURSIVE lane AS (
    (SELECT job.queue, job.priority, job.run_at, job.id FROM {schema}.job
     WHERE job.state = 'ready' AND (job.queue, job.priority) > (%(queue)s::text, %(priority)s::smallint)
     ORDER BY job.queue, job.priority, job.run_at, job.id LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority, following.run_at, following.id
    FROM lane
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority, job.run_at, job.id FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (lane.queue, lane.priority)
        ORDER BY job.queue, job.priority, job.run_at, job.id LIMIT 1
    ) AS following
)
SELECT queue, priority, (extract(epoch FROM run_at) * 1000000)::bigint, id,
       extract(epoch FROM run_at - clock_timestamp())::double precision
FROM lane
LIMIT %(most)s
