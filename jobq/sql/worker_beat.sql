-- The heartbeat. No row returned: another worker has taken this one for dead, and its jobs with it.
-- Plan: Index Scan using worker_pkey; a HOT update.
UPDATE {schema}.worker
SET heartbeat_at = clock_timestamp(), beats = beats + 1, running = %(running)s, state = %(state)s, tasks = %(tasks)s
WHERE id = %(id)s
RETURNING beats
