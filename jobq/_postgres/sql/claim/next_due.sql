-- Returns the first job of each of these lanes, due or later: index of the lane (from 0), and
-- seconds until it is due (0 or less: now). Each lane is read from the position set by cursor.py.
-- Plan: for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
SELECT lane.n - 1, extract(epoch FROM head.run_at - clock_timestamp())::double precision
FROM
    --include lanes
CROSS JOIN LATERAL (
    SELECT ready.run_at
    FROM {schema}.job AS ready
    WHERE
      --include lane_entries
    ORDER BY ready.run_at, ready.id
    LIMIT 1
) AS head
