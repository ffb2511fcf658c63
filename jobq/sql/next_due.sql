-- Seconds until the next job of these lanes is due (0 or less: now), or NULL when there is none.
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT extract(epoch FROM min(head.run_at) - clock_timestamp())::double precision
FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) AS lane (queue, priority)
CROSS JOIN LATERAL (
    SELECT ready.run_at
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue AND ready.priority = lane.priority AND ready.state = 'ready'
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
