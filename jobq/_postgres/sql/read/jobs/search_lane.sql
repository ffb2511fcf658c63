-- Returns the ids of a queue's ready and scheduled jobs, for queues with few of them.
-- Plan: job_claim_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'ready' AND queue = %(queue)s::text
ORDER BY priority, run_at, id
LIMIT %(limit)s
