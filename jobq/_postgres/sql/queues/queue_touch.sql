-- Tells workers that something of this queue has changed.
-- Plan: queue_pkey.
UPDATE {schema}.queue SET changed_at = clock_timestamp() WHERE name = %(queue)s::text RETURNING changed_at
