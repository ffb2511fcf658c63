-- The ids of one group's jobs that wait for its turn, when they are few.
-- Plan: job_waiting_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'waiting' AND queue = %(queue)s::text AND group_key = %(group)s::text
ORDER BY id
LIMIT %(limit)s
