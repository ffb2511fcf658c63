-- Counts the due jobs of each queue in every state (ready, waiting for their group, parked), each
-- up to `bound`, and returns how long the oldest job seen has been due.
-- Plan: a loose index scan hops over job_claim_idx from one (queue, priority) to the next; a lane, and a queue's
-- waiting jobs in job_waiting_due_idx, count at most `bound` entries; job_parked_idx up to 10,000.
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
    SELECT * FROM pair LIMIT 5000
)
SELECT depth.queue, sum(depth.number)::bigint, bool_or(depth.number >= %(bound)s),
       extract(epoch FROM clock_timestamp() - min(depth.oldest))::double precision
FROM (
    SELECT few.queue, lane.number, lane.oldest
    FROM few
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, min(entry.run_at) AS oldest
        FROM (SELECT job.run_at FROM {schema}.job
              WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority
                AND job.run_at <= statement_timestamp()
              ORDER BY job.run_at LIMIT %(bound)s) AS entry
    ) AS lane
    UNION ALL
    SELECT named.name, counted.number, counted.oldest
    FROM (SELECT queue.name FROM {schema}.queue ORDER BY queue.name LIMIT 5000) AS named
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, min(entry.run_at) AS oldest
        FROM (SELECT job.run_at FROM {schema}.job WHERE job.state = 'waiting' AND job.queue = named.name
              ORDER BY job.queue, job.group_key, job.run_at LIMIT %(bound)s) AS entry
        WHERE entry.run_at <= statement_timestamp()
    ) AS counted
    UNION ALL
    SELECT parked.queue, count(*), min(parked.run_at)
    FROM (SELECT job.queue, job.run_at FROM {schema}.job
          WHERE job.parked_at IS NOT NULL AND job.state = 'parked' AND job.run_at <= statement_timestamp()
          LIMIT 10000) AS parked
    GROUP BY parked.queue
) AS depth
WHERE depth.number > 0
GROUP BY depth.queue
