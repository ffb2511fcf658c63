-- Returns the ids of one group's waiting jobs, for groups with few of them.
-- Plan: job_waiting_idx, in its order.
SELECT id FROM {schema}.job
WHERE state = 'waiting' AND queue = %(queue)s::text AND group_key = %(group)s::text
ORDER BY id
LIMIT %(limit)s
