-- Writes the heartbeat. It needs only the worker's own row, so no lock on another table can delay
-- it. heartbeat_reply.sql reads everything else.
-- Returns the server's process, and the state that an operator requests of the worker. No row:
-- another worker has considered this one dead and taken its jobs.
-- If a lock could not be taken again, `lock_server_start` stays as it is: the lost connection may
-- still hold the lock.
-- Plan: Index Scan using worker_pkey; the update is HOT.
UPDATE {schema}.worker
SET lock_server_start = CASE WHEN %(pooled)s THEN NULL WHEN %(locked)s THEN pg_postmaster_start_time() ELSE lock_server_start END,
    heartbeat_at = clock_timestamp(), beats = beats + 1, running = %(running)s, state = %(state)s, tasks = %(tasks)s,
    signatures = %(signatures)s, rss = %(rss)s, problems = %(problems)s::jsonb
WHERE id = %(id)s
RETURNING pg_backend_pid(), requested_state
