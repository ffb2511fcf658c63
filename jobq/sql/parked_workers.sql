-- The live workers that know a task: the queues that they serve (NULL: all), what they do, and whether their signature of the
-- task is one that has not refused the job with this list of refusals.
-- Plan: the worker table is as small as the fleet and is read whole.
SELECT worker.queues, worker.state,
       NOT coalesce(known.signature = ANY (string_to_array(%(refused)s::text, ' ')), false) AS may
FROM {schema}.worker
CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
WHERE known.task = %(task)s
  AND worker.heartbeat_at > clock_timestamp() - coalesce(worker.lease, 30) * interval '1 second'
