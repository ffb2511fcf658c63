-- Returns the settings of one queue; no row if nothing was ever set. The columns are in the order
-- of jobq.operations.queue_settings.COLUMNS.
-- Times are text, which is the same for every DateStyle of the session: it may be a caller's
-- session.
-- Plan: queue_pkey.
SELECT max_running, rate_jobs, rate_seconds, rate_burst, group_mode, group_limit, group_retry, group_rate_jobs,
       group_rate_seconds, group_rate_burst,
       to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS paused_at,
       to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS changed_at
FROM {schema}.queue
WHERE name = %(queue)s::text
