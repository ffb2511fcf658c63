-- Inserts one job of a schedule at once, which is no tick of its; the argument for a tick's time gets the present.
INSERT INTO {schema}.job (task, args, queue, priority, run_at, max_attempts, timeout, headers)
SELECT task,
       args || CASE WHEN tick_argument IS NULL THEN '{{}}'::jsonb ELSE jsonb_build_object(
           tick_argument, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')) END,
       queue, priority, clock_timestamp(), max_attempts, timeout, headers || jsonb_build_object('jobq.schedule', name)
FROM {schema}.schedule WHERE name = %(name)s
RETURNING id
