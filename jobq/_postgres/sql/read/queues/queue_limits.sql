-- Returns the groups of a queue that have a limit of their own, the first `most` by name.
-- Plan: rate_state_pkey, the queue's range.
SELECT group_key AS key, max_running AS limit
FROM {schema}.rate_state
WHERE queue = %(queue)s::text AND group_key > '' AND max_running IS NOT NULL
ORDER BY group_key
LIMIT %(most)s::integer
