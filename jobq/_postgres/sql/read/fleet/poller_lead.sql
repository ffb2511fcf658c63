-- Returns the notify mode, whether some worker is the lead poller, and the application name of its
-- session. The name is NULL for a role that may not see other users' sessions.
-- Plan: shared memory only.
SELECT (SELECT last_value FROM {schema}.notify_mode) AS mode,
       lead.pid IS NOT NULL AS led, lead.application_name
FROM (SELECT) AS one
LEFT JOIN (
    SELECT lock.pid, session.application_name
    FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session USING (pid)
    WHERE
        --include poller_lock
) AS lead ON true
