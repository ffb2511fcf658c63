-- The condition on `job`: other code has refused it, its task is `known.task`, `known.signature` has
-- not refused it, it is not due yet, and its queue is served and has rules.
job.parked_at IS NOT NULL AND job.task = known.task AND job.parked_claims = job.claims
AND (job.state = 'parked' OR job.state IN ('ready', 'waiting') AND job.run_at > clock_timestamp())
AND
--include signature_not_refused refusals=job.parked_signature
AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
AND EXISTS (
    SELECT FROM {schema}.queue AS rule
    WHERE rule.name = job.queue
      AND (rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL))
