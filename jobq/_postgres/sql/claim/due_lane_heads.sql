-- The lead poller's query: the head of every lane, which is the first job that is due or will be.
-- Each lane is read from the position set by cursor.py, to avoid the dead index entries that a
-- pinned horizon keeps.
-- The first row returned has the last assigned id, by which new jobs are counted; the time; the
-- snapshot's xmin: every older transaction has ended, and its commit is visible here; its xmax; and
-- how many transaction ids after 3 have been assigned. The other rows are the heads: index of the
-- lane (from 0), id, run_at in microseconds since 1970, and the seconds until it is due (0 or less:
-- now).
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT NULL AS place, (SELECT last_value FROM {schema}.job_id_seq) AS id,
       (extract(epoch FROM now()) * 1000000)::bigint AS run_at, NULL::double precision AS seconds,
       pg_snapshot_xmin(seen)::text::bigint AS oldest, pg_snapshot_xmax(seen)::text::bigint AS above, age('3'::xid) AS given
FROM pg_current_snapshot() AS seen
UNION ALL
SELECT lane.n - 1, head.id, (extract(epoch FROM head.run_at) * 1000000)::bigint,
       extract(epoch FROM head.run_at - clock_timestamp())::double precision, NULL, NULL, NULL
FROM
    --include lanes
CROSS JOIN LATERAL (
    SELECT ready.id, ready.run_at
    FROM {schema}.job AS ready
    WHERE
      --include lane_entries
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
