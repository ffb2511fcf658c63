-- Claims parked jobs of tasks that this worker's code has (each with its signature), unless that very signature has refused
-- them: of these queues (NULL: all) but for those in `without`, and of none that is paused or has a limit, a rate or a rule for
-- groups. Rows as advance.sql's. Mostly the highest priorities first, and of a task the earliest first.
-- The variant `claim_parked:one` claims one job only (parked.py).
-- Plan: job_parked_idx for each task and priority under LockRows and Limit; queue_pkey; job_pkey; no Seq Scan on job.
WITH heads AS MATERIALIZED (
    SELECT head.id
    FROM generate_series(9, 0, -1) AS lane (priority)
    CROSS JOIN unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
    CROSS JOIN LATERAL (
        SELECT job.id
        FROM {schema}.job AS job
        WHERE job.parked_at IS NOT NULL AND job.state = 'parked'
          AND job.task = known.task AND job.priority = lane.priority::smallint AND job.run_at <= now()
          AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false)
          AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
          AND NOT job.queue = ANY (%(without)s::text[])
          --one AND job.id = %(only)s
          AND NOT EXISTS (
              SELECT FROM {schema}.queue AS rule
              WHERE rule.name = job.queue
                AND (rule.paused_at IS NOT NULL OR rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL
                     OR rule.group_mode IS NOT NULL))
        ORDER BY job.run_at, job.id
        LIMIT %(want)s
        FOR NO KEY UPDATE OF job SKIP LOCKED
    ) AS head
    LIMIT %(want)s
), claimed AS (
    UPDATE {schema}.job AS job
    SET state = 'running', managed = false, attempt = least(job.attempt, 2147483646) + 1,
        claims = CASE job.claims WHEN 2147483647 THEN 1 ELSE job.claims + 1 END, worker_id = %(worker)s,
        started_at = now(), progress = NULL
    WHERE job.id = ANY (ARRAY(SELECT id FROM heads))
    RETURNING job.id, job.claims, job.task, job.queue, job.args, job.attempt, job.max_attempts,
              job.crashes - job.losses AS crashes, job.timeout, job.headers, job.expires_at, job.key_until_started, job.run_alone,
              job.releases
)
SELECT id, claims, task, queue, args::text, attempt, max_attempts, crashes, timeout, headers::text, expires_at <= now(),
       (SELECT (extract(epoch FROM now()) * 1000000)::bigint), key_until_started, run_alone, releases
FROM claimed
