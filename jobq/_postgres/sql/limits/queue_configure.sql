-- Sets a queue's limit, rates and rule for its groups, all together. Its pause stays. Workers see
-- the change by changed_at.
-- Plan: queue_pkey.
INSERT INTO {schema}.queue AS entry (
    name, max_running, rate_jobs, rate_seconds, rate_burst, group_mode, group_limit, group_retry,
    group_rate_jobs, group_rate_seconds, group_rate_burst, changed_at
)
VALUES (
    %(queue)s::text, %(max_running)s::integer, %(rate_jobs)s::integer, %(rate_seconds)s::double precision,
    %(rate_burst)s::integer, %(group_mode)s::text, %(group_limit)s::integer, %(group_retry)s::text,
    %(group_rate_jobs)s::integer, %(group_rate_seconds)s::double precision, %(group_rate_burst)s::integer, clock_timestamp()
)
ON CONFLICT (name) DO UPDATE
SET max_running = excluded.max_running, rate_jobs = excluded.rate_jobs, rate_seconds = excluded.rate_seconds,
    rate_burst = excluded.rate_burst, group_mode = excluded.group_mode, group_limit = excluded.group_limit,
    group_retry = excluded.group_retry, group_rate_jobs = excluded.group_rate_jobs,
    group_rate_seconds = excluded.group_rate_seconds, group_rate_burst = excluded.group_rate_burst,
    changed_at = excluded.changed_at
RETURNING to_char(entry.changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
