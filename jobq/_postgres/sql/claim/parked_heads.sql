-- Returns the parked jobs that claim_parked.sql would claim first, except those in `refused`. Locks
-- nothing. Used after a claim of several jobs has failed (parked.py), to claim them one by one.
-- Plan: job_parked_idx for each task and priority under Limit; queue_pkey; no Seq Scan on job.
SELECT head.id, head.queue
FROM generate_series(9, 0, -1) AS lane (priority)
CROSS JOIN unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
CROSS JOIN LATERAL (
    SELECT job.id, job.queue
    FROM {schema}.job AS job
    WHERE
        --include parked_claimable
        AND NOT job.id = ANY (%(refused)s::bigint[])
    ORDER BY job.run_at, job.id
    LIMIT %(want)s
) AS head
LIMIT %(want)s
