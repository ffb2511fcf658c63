-- What the sentinel polls for: the head of every lane, so the first job that is due or will be. Each lane is read from where
-- cursor.py says: that spares the dead index entries that a pinned horizon keeps.
-- The first row returned has the last id given out, by which arrivals are counted; the time; the snapshot's xmin: every
-- older transaction has ended, and what it committed is seen here; its xmax; and how many transaction ids after 3 have been
-- given out. The others are the heads: place of the lane (from 0), id, run_at in microseconds since 1970, and the seconds
-- until it is due (0 or less: now).
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT NULL AS place, (SELECT last_value FROM {schema}.job_id_seq) AS id,
       (extract(epoch FROM now()) * 1000000)::bigint AS run_at, NULL::double precision AS seconds,
       pg_snapshot_xmin(seen)::text::bigint AS oldest, pg_snapshot_xmax(seen)::text::bigint AS above, age('3'::xid) AS given
FROM pg_current_snapshot() AS seen
UNION ALL
SELECT lane.n - 1, head.id, (extract(epoch FROM head.run_at) * 1000000)::bigint,
       extract(epoch FROM head.run_at - clock_timestamp())::double precision, NULL, NULL, NULL
FROM unnest(
    %(queues)s::text[], %(priorities)s::smallint[], %(since)s::bigint[], %(since_ids)s::bigint[]
) WITH ORDINALITY AS lane (queue, priority, since, since_id, n)
CROSS JOIN LATERAL (
    SELECT ready.id, ready.run_at
    FROM {schema}.job AS ready
    WHERE ready.queue = lane.queue
      AND ready.priority = lane.priority
      AND ready.state = 'ready'
      AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
