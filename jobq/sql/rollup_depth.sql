-- How many jobs of each queue are due, counted up to `bound`, and how long the oldest has been.
-- Plan: a loose index scan hops over job_claim_idx from one (queue, priority) to the next; a lane counts at most `bound` entries.
WITH RECURSIVE pair AS (
    (SELECT job.queue, job.priority FROM {schema}.job WHERE job.state = 'ready' ORDER BY job.queue, job.priority LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority
    FROM pair
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (pair.queue, pair.priority)
        ORDER BY job.queue, job.priority LIMIT 1
    ) AS following
), few AS MATERIALIZED (
    SELECT * FROM pair LIMIT 2000
)
SELECT few.queue, sum(depth.number)::bigint, bool_or(depth.number >= %(bound)s),
       extract(epoch FROM clock_timestamp() - min(depth.oldest))::double precision
FROM few
CROSS JOIN LATERAL (
    SELECT count(*) AS number, min(entry.run_at) AS oldest
    FROM (SELECT job.run_at FROM {schema}.job
          WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority
            AND job.run_at <= statement_timestamp()
          ORDER BY job.run_at LIMIT %(bound)s) AS entry
) AS depth
WHERE depth.number > 0
GROUP BY few.queue
