-- The ids of a queue's jobs that wait for their groups' turn, when they are few.
-- Plan: job_waiting_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'waiting' AND queue = %(queue)s::text
ORDER BY queue, group_key, id
LIMIT %(limit)s
