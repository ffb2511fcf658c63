-- Inserts one job of a schedule at once, outside its ticks. The argument for a tick's time gets the
-- current time.
-- Returns the job's id and whether it was inserted. If not, the id is that of the job that holds
-- the schedule's key (NULL: unknown).
WITH one AS MATERIALIZED (
    SELECT task,
           args || CASE WHEN tick_argument IS NULL THEN '{{}}'::jsonb ELSE jsonb_build_object(
               tick_argument, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')) END AS args,
           queue, priority, max_attempts, timeout, headers || jsonb_build_object('jobq.schedule', name) AS headers, group_key, key,
           expires_in
    FROM {schema}.schedule WHERE name = %(name)s
), inserted AS (
    INSERT INTO {schema}.job (
        --include insert_job
    )
    SELECT task, args, queue, priority, clock_timestamp(), max_attempts, timeout, headers, group_key,
           clock_timestamp() + expires_in * interval '1 second'
    FROM one WHERE key IS NULL
    RETURNING id
)
SELECT id, true AS created FROM inserted
UNION ALL
SELECT made.job_id, made.created
FROM one CROSS JOIN LATERAL {schema}.enqueue_one(
    one.task, one.args, one.queue, one.priority::integer, NULL, NULL, one.max_attempts, one.timeout, one.headers, one.key,
    'until_finished', NULL, 'return', one.group_key, one.expires_in) AS made
WHERE one.key IS NOT NULL
