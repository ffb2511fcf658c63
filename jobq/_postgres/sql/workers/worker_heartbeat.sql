-- The heartbeat: it needs the worker's own row and nothing else, so that no lock of another table keeps it back. What else a
-- worker reads with it comes from another statement (hear.sql).
-- Returns the server's process, and what an operator wants of the worker. No row: another worker has taken this one for dead,
-- and its jobs with it.
-- A lock that could not be taken again leaves `lock_server_start` as it is: the lost connection may still hold it.
-- Plan: Index Scan using worker_pkey; the update is HOT.
UPDATE {schema}.worker
SET lock_server_start = CASE WHEN %(pooled)s THEN NULL WHEN %(locked)s THEN pg_postmaster_start_time() ELSE lock_server_start END,
    heartbeat_at = clock_timestamp(), beats = beats + 1, running = %(running)s, state = %(state)s, tasks = %(tasks)s,
    signatures = %(signatures)s, rss = %(rss)s, problems = %(problems)s::jsonb
WHERE id = %(id)s
RETURNING pg_backend_pid(), asked
