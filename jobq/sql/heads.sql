-- What the sentinel polls for: the head of every lane, so the first job that is due or will be. `since` is a lower bound of
-- run_at, below which no job is known to be: it spares the dead index entries that a pinned horizon keeps.
-- The first row returned has the last id given out, by which arrivals are counted, and the oldest transaction id that was
-- running in the snapshot of this very statement: whoever is older has ended, and what he committed is seen here. The others
-- are the heads: queue, id and the seconds until they are due (0 or less: now).
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT NULL AS queue, (SELECT last_value FROM {schema}.job_id_seq) AS id,
       NULL::double precision AS seconds, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest
UNION ALL
SELECT lane.queue, head.id, extract(epoch FROM head.run_at - clock_timestamp())::double precision, NULL
FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(since)s::timestamptz[]) AS lane (queue, priority, since)
CROSS JOIN LATERAL (
    SELECT ready.id, ready.run_at
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue
      AND ready.priority = lane.priority
      AND ready.state = 'ready'
      AND ready.run_at >= lane.since
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
