-- The lanes (queue, priority) behind one that have ready jobs, each with its first job, due or for later: at most `most` of them,
-- so that a reader of all of them holds up nothing for long. A loose index scan from the lanes' very beginnings: one descent of
-- job_claim_idx a lane, whatever the backlog; it walks over the dead entries that lie before a lane's first job.
-- queue, priority, run_at in microseconds since 1970, id, and the seconds until it is due (0 or less: now).
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
