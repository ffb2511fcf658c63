-- The first job of each of these lanes, due or for later: place of the lane (from 0) and seconds until it is due (0 or less: now).
-- Each lane is read from where cursor.py says.
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT lane.n - 1, extract(epoch FROM head.run_at - clock_timestamp())::double precision
FROM unnest(
    %(queues)s::text[], %(priorities)s::smallint[], %(since)s::bigint[], %(since_ids)s::bigint[]
) WITH ORDINALITY AS lane (queue, priority, since, since_id, n)
CROSS JOIN LATERAL (
    SELECT ready.run_at
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue AND ready.priority = lane.priority AND ready.state = 'ready'
      AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
