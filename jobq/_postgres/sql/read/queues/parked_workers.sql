-- Returns the live workers that know a task: the queues that they serve (NULL: all), their state,
-- and whether their signature of the task has not refused the job with this list of refusals.
-- Plan: the worker table is as small as the fleet and is read whole.
SELECT worker.queues, worker.state,
       --include signature_not_refused refusals=%(refused)s::text
       AS may
FROM {schema}.worker
CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
WHERE known.task = %(task)s
  AND worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second'
