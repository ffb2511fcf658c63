-- Returns the first job of each of these lanes, due or later, read from the lane's beginning:
-- queue, priority, run_at in microseconds since 1970, id, and the seconds until it is due (0 or
-- less: now). It is lanes.sql for a worker with few queues among many. Locks nothing.
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT lane.queue, lane.priority, (extract(epoch FROM head.run_at) * 1000000)::bigint, head.id,
       extract(epoch FROM head.run_at - clock_timestamp())::double precision
FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) AS lane (queue, priority)
CROSS JOIN LATERAL (
    SELECT ready.run_at, ready.id
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue AND ready.priority = lane.priority AND ready.state = 'ready'
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
