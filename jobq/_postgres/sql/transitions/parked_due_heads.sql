-- Returns the jobs that parked_due.sql would make due first, except those in `refused`. Locks
-- nothing. Used after parked_due.sql has failed (parked.py), to make the jobs due one by one.
-- Plan: job_parked_idx for each task under Limit; queue_pkey; no Seq Scan on job.
SELECT refused.id, refused.queue
FROM unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
CROSS JOIN LATERAL (
    SELECT job.id, job.queue
    FROM {schema}.job AS job
    WHERE
        --include parked_in_line
        AND NOT job.id = ANY (%(refused)s::bigint[])
    ORDER BY job.priority DESC, job.run_at, job.id
    LIMIT %(want)s
) AS refused
LIMIT %(want)s
