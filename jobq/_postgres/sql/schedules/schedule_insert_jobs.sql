-- Inserts the jobs of these ticks, unless they exist, with their rows in schedule_tick, and moves
-- the schedule on.
-- The caller holds the schedule's lock, so no other worker inserts its ticks. If one did, the key
-- of schedule_tick would abort the transaction, and no job would be inserted twice.
-- The ticks of a schedule with a key use enqueue_one, in order. If a job holds the key at a tick,
-- the tick is recorded as skipped, with that job's id (-1: unknown).
-- Returns how many jobs were inserted, how many ticks were skipped, and the job that held the key.
-- Plan: the keys of schedule and schedule_tick; one lookup a tick.
WITH due AS (
    SELECT iso, iso::timestamptz AS tick FROM unnest(%(ticks)s::text[]) AS iso
), wanted AS MATERIALIZED (
    SELECT due.iso, due.tick, schedule.task,
           schedule.args || CASE WHEN schedule.tick_argument IS NULL THEN '{{}}'::jsonb
                                 ELSE jsonb_build_object(schedule.tick_argument, due.iso) END AS args,
           schedule.queue, schedule.priority, schedule.max_attempts, schedule.timeout,
           schedule.headers || jsonb_build_object('jobq.schedule', schedule.name, 'jobq.tick', due.iso) AS headers,
           schedule.group_key, schedule.key, schedule.expires_in
    FROM {schema}.schedule CROSS JOIN due
    WHERE schedule.name = %(name)s AND NOT EXISTS (
        SELECT FROM {schema}.schedule_tick WHERE schedule_tick.schedule = %(name)s AND schedule_tick.tick = due.tick)
    ORDER BY due.tick
), inserted AS (
    INSERT INTO {schema}.job (
        --include insert_job
    )
    SELECT task, args, queue, priority,
           -- Never before this moment (_worker/lanes/cursor.py). The tick's own time is in the
           -- headers.
           clock_timestamp(), max_attempts, timeout, headers, group_key,
           clock_timestamp() + expires_in * interval '1 second'
    FROM wanted WHERE key IS NULL
    RETURNING id, headers ->> 'jobq.tick' AS iso
), keyed AS MATERIALIZED (
    SELECT wanted.iso, made.job_id, made.created
    FROM wanted CROSS JOIN LATERAL {schema}.enqueue_one(
        wanted.task, wanted.args, wanted.queue, wanted.priority::integer, NULL, NULL, wanted.max_attempts, wanted.timeout,
        wanted.headers, wanted.key, 'until_finished', NULL, 'return', wanted.group_key, wanted.expires_in) AS made
    WHERE wanted.key IS NOT NULL
), done AS (
    SELECT iso::timestamptz AS tick, id AS job_id, false AS skipped FROM inserted
    UNION ALL
    SELECT iso::timestamptz, coalesce(job_id, -1), NOT created FROM keyed
), ticked AS (
    INSERT INTO {schema}.schedule_tick (schedule, tick, job_id, skipped) SELECT %(name)s, tick, job_id, skipped FROM done
)
UPDATE {schema}.schedule
SET next_at = %(next_at)s::timestamptz, last_error = NULL,
    last_tick = coalesce((SELECT max(tick) FROM due), last_tick),
    last_job_id = coalesce((SELECT job_id FROM done WHERE NOT skipped ORDER BY tick DESC LIMIT 1), last_job_id)
WHERE name = %(name)s
RETURNING (SELECT count(*) FROM done WHERE NOT skipped), (SELECT count(*) FROM done WHERE skipped),
          (SELECT max(job_id) FROM done WHERE skipped)
