-- Sets how many jobs of one group may run at a time.
-- Plan: rate_state_pkey.
INSERT INTO {schema}.rate_state (queue, group_key, max_running)
VALUES (%(queue)s::text, %(group)s::text, %(limit)s::integer)
ON CONFLICT (queue, group_key) DO UPDATE SET max_running = excluded.max_running
RETURNING 1
