-- The condition on `job`: it is parked and due, its task and priority are `known.task` and
-- `lane.priority`, `known.signature` has not refused it, and its queue is served, not paused, and
-- without rules.
job.parked_at IS NOT NULL AND job.state = 'parked'
AND job.task = known.task AND job.priority = lane.priority::smallint AND job.run_at <= now()
AND
--include signature_not_refused refusals=job.parked_signature
AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
AND NOT EXISTS (
    SELECT FROM {schema}.queue AS rule
    WHERE rule.name = job.queue
      AND (rule.paused_at IS NOT NULL OR rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL
           OR rule.group_mode IS NOT NULL))
