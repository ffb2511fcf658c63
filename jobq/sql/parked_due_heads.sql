-- The jobs that parked_due.sql would make due first, but for those in `refused`; nothing is locked. Asked when that has failed
-- (parked.py), to make them due one by one.
-- Plan: job_parked_idx for each task under Limit; queue_pkey; no Seq Scan on job.
SELECT refused.id, refused.queue
FROM unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
CROSS JOIN LATERAL (
    SELECT job.id, job.queue
    FROM {schema}.job AS job
    WHERE job.parked_at IS NOT NULL AND job.task = known.task AND job.parked_claims = job.claims
      AND (job.state = 'parked' OR job.state IN ('ready', 'waiting') AND job.run_at > clock_timestamp())
      AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false)
      AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
      AND NOT job.id = ANY (%(refused)s::bigint[])
      AND EXISTS (
          SELECT FROM {schema}.queue AS rule
          WHERE rule.name = job.queue
            AND (rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL))
    ORDER BY job.priority DESC, job.run_at, job.id
    LIMIT %(want)s
) AS refused
LIMIT %(want)s
