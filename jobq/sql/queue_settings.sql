-- What is set for one queue; no row where nothing ever was. The columns in the order of jobq.operations.settings.COLUMNS.
-- Plan: queue_pkey.
SELECT max_running, rate_jobs, rate_seconds, rate_burst, group_mode, group_limit, group_retry, group_rate_jobs,
       group_rate_seconds, group_rate_burst, paused_at, changed_at
FROM {schema}.queue
WHERE name = %(queue)s::text
