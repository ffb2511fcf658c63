-- Claims parked jobs of tasks that this worker's code has (each with its signature), unless that
-- same signature has refused them. Only jobs of these queues (NULL: all) except those in `without`,
-- and only of queues that are not paused and have no limit, rate or rule for groups. Returns rows
-- as ack_and_claim.sql does. Mostly the highest priorities come first, and within a task the
-- earliest jobs.
-- The variant `claim_parked:one` claims only one job (parked.py).
-- Plan: job_parked_idx for each task and priority under LockRows and Limit; queue_pkey; job_pkey; no Seq Scan on job.
WITH heads AS MATERIALIZED (
    SELECT head.id
    FROM generate_series(9, 0, -1) AS lane (priority)
    CROSS JOIN unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
    CROSS JOIN LATERAL (
        SELECT job.id
        FROM {schema}.job AS job
        WHERE
            --include parked_claimable
            AND NOT job.queue = ANY (%(without)s::text[])
            --one AND job.id = %(only)s
        ORDER BY job.run_at, job.id
        LIMIT %(want)s
        FOR NO KEY UPDATE OF job SKIP LOCKED
    ) AS head
    LIMIT %(want)s
), claimed AS (
    UPDATE {schema}.job AS job
    SET state = 'running', limited = false, worker_id = %(worker)s, started_at = now(), progress = NULL,
        --include count_claim
    WHERE job.id = ANY (ARRAY(SELECT id FROM heads))
    RETURNING
        --include claimed_columns
)
SELECT id, claims, task, queue, args::text, attempt, max_attempts, crashes, timeout, headers::text, expires_at <= now(),
       (SELECT (extract(epoch FROM now()) * 1000000)::bigint), key_until_started, run_alone, releases
FROM claimed
