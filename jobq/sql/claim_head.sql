-- The job that a claim of these lanes would take first: place of the lane (from 0), id, run_at in microseconds since 1970. It is
-- locked until the transaction's end, so a claim in the same transaction takes the same one. Asked when the database has refused
-- the claim of a single job (refused.py).
-- Plan: Index Scan using job_claim_idx under LockRows and Limit; no Sort, no Seq Scan on job.
SELECT lane.n - 1, head.id, (extract(epoch FROM head.run_at) * 1000000)::bigint
FROM unnest(
    %(queues)s::text[], %(priorities)s::smallint[], %(since)s::bigint[], %(since_ids)s::bigint[]
) WITH ORDINALITY AS lane (queue, priority, since, since_id, n)
CROSS JOIN LATERAL (
    SELECT ready.run_at, ready.id
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue
      AND ready.priority = lane.priority
      AND ready.state = 'ready'
      AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
      AND ready.run_at <= now()
      AND NOT ready.id = ANY (%(refused)s::bigint[])
    ORDER BY ready.run_at, ready.id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
) AS head
LIMIT 1
