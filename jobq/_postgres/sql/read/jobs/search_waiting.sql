-- Returns the ids of a queue's jobs that wait for their groups, for queues with few of them.
-- Plan: job_waiting_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'waiting' AND queue = %(queue)s::text
ORDER BY queue, group_key, id
LIMIT %(limit)s
