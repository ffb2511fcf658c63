-- Sets how many of one group may run at a time.
-- Plan: gate_pkey.
INSERT INTO {schema}.gate (queue, group_key, max_running)
VALUES (%(queue)s::text, %(group)s::text, %(limit)s::integer)
ON CONFLICT (queue, group_key) DO UPDATE SET max_running = excluded.max_running
RETURNING 1
