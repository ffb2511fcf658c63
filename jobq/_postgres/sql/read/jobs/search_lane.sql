-- The ids of a queue's ready and scheduled jobs, when they are few.
-- Plan: job_claim_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'ready' AND queue = %(queue)s::text
ORDER BY priority, run_at, id
LIMIT %(limit)s
