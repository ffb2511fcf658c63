-- The heartbeat. No row returned: another worker has taken this one for dead, and its jobs with it.
-- A lock that could not be taken anew leaves `lock_server_start` as it is: the lost connection may still hold it.
-- Plan: Index Scan using worker_pkey; a HOT update.
UPDATE {schema}.worker
SET lock_server_start = CASE WHEN %(pooled)s THEN NULL WHEN %(locked)s THEN pg_postmaster_start_time() ELSE lock_server_start END,
    heartbeat_at = clock_timestamp(), beats = beats + 1, running = %(running)s, state = %(state)s, tasks = %(tasks)s
WHERE id = %(id)s
RETURNING beats, pg_backend_pid()
