-- The parked jobs that claim_parked.sql would claim first, but for those in `refused`; nothing is locked. Asked when a claim of
-- several has failed (parked.py), to claim them one by one.
-- Plan: job_parked_idx for each task and priority under Limit; queue_pkey; no Seq Scan on job.
SELECT head.id, head.queue
FROM generate_series(9, 0, -1) AS lane (priority)
CROSS JOIN unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
CROSS JOIN LATERAL (
    SELECT job.id, job.queue
    FROM {schema}.job AS job
    WHERE job.parked_at IS NOT NULL AND job.state = 'parked'
      AND job.task = known.task AND job.priority = lane.priority::smallint AND job.run_at <= now()
      AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false)
      AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
      AND NOT job.id = ANY (%(refused)s::bigint[])
      AND NOT EXISTS (
          SELECT FROM {schema}.queue AS rule
          WHERE rule.name = job.queue
            AND (rule.paused_at IS NOT NULL OR rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL
                 OR rule.group_mode IS NOT NULL))
    ORDER BY job.run_at, job.id
    LIMIT %(want)s
) AS head
LIMIT %(want)s
