-- Marks a queue as changed, for the workers.
-- Plan: queue_pkey.
UPDATE {schema}.queue SET changed_at = clock_timestamp() WHERE name = %(queue)s::text RETURNING changed_at
