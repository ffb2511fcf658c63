-- The first due job of each of these lanes, read from its very beginning: place (from 0), run_at in microseconds since 1970, id.
-- Walks over all dead entries of the index, so a worker asks it on a connection of its own. Locks nothing.
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT lane.n - 1, (extract(epoch FROM head.run_at) * 1000000)::bigint, head.id
FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) WITH ORDINALITY AS lane (queue, priority, n)
CROSS JOIN LATERAL (
    SELECT ready.run_at, ready.id
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue AND ready.priority = lane.priority AND ready.state = 'ready' AND ready.run_at <= now()
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
