-- Returns all schedules, or those after a name, or one, with the seconds since they were due. The
-- table has some tens of rows, or a row per customer: it is read a page at a time, by the key.
SELECT name, task, args::text AS args, queue, priority, max_attempts, timeout, headers::text AS headers, group_key, key,
       expires_in, cron,
       CASE WHEN every IS NOT NULL THEN least(greatest(every, '-1 day'), '40000 days') END AS every, timezone,
       missed, max_missed,
       tick_argument, source, app, made_by, created_at, changed_at,
       CASE WHEN next_at > 'epoch' AND next_at < '9999-01-01' THEN next_at END AS next_at,
       last_tick, last_job_id, paused_at, paused_by, pause_reason, withdrawn_at, last_error,
       -- One read of the workers for all rows.
       name IN (SELECT unnest(worker.schedules) FROM {schema}.worker
                WHERE worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second') AS declared,
       clock_timestamp() AS now
FROM {schema}.schedule
WHERE name > coalesce(%(after)s::text, '') AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY name LIMIT %(limit)s
