-- Returns an overview of the server. Connections are from pg_stat_database: pg_stat_activity hides
-- other users' connections from a role without pg_read_all_stats.
-- Plan: catalogues and shared memory only.
SELECT current_setting('server_version') AS server_version, pg_postmaster_start_time() AS started_at,
       clock_timestamp() AS read_at, pg_notification_queue_usage() AS notify_usage,
       (SELECT sum(numbackends)::integer FROM pg_stat_database) AS connections,
       current_setting('max_connections')::integer
           - current_setting('superuser_reserved_connections')::integer AS max_connections,
       (SELECT count(*)::integer FROM pg_stat_activity
        WHERE backend_type IS NULL AND usename IS NOT NULL AND pid <> pg_backend_pid()) AS hidden_sessions
