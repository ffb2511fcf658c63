-- The groups of a queue that have a limit of their own, the first `most` by name.
-- Plan: gate_pkey, the queue's range.
SELECT group_key AS key, max_running AS limit
FROM {schema}.gate
WHERE queue = %(queue)s::text AND group_key > '' AND max_running IS NOT NULL
ORDER BY group_key
LIMIT %(most)s::integer
