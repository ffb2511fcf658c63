-- Returns the job that a claim of these lanes would take first: index of the lane (from 0), id,
-- run_at in microseconds since 1970. The job stays locked until the end of the transaction, so a
-- claim in the same transaction takes the same job. Used after the database has refused the claim
-- of a single job (refused_claims.py).
-- Plan: Index Scan using job_claim_idx under LockRows and Limit; no Sort, no Seq Scan on job.
SELECT lane.n - 1, head.id, (extract(epoch FROM head.run_at) * 1000000)::bigint
FROM
    --include lanes
CROSS JOIN LATERAL (
    SELECT ready.run_at, ready.id
    FROM {schema}.job AS ready
    WHERE
      --include lane_entries
      AND ready.run_at <= now()
      AND NOT ready.id = ANY (%(refused)s::bigint[])
    ORDER BY ready.run_at, ready.id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
) AS head
LIMIT 1
