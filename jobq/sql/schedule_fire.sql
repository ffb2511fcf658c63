-- Inserts the jobs of these ticks, unless they have been, with their rows in schedule_tick, and moves the schedule on.
-- The caller holds the schedule's lock, so no one else inserts its ticks; if another did, the key of schedule_tick would
-- end the transaction, and no job were inserted twice. Returns how many jobs were inserted.
-- Plan: the keys of schedule and schedule_tick; one lookup a tick.
WITH due AS (
    SELECT iso, iso::timestamptz AS tick FROM unnest(%(ticks)s::text[]) AS iso
), inserted AS (
    INSERT INTO {schema}.job (task, args, queue, priority, run_at, max_attempts, timeout, headers)
    SELECT schedule.task,
           schedule.args || CASE WHEN schedule.tick_argument IS NULL THEN '{{}}'::jsonb
                                 ELSE jsonb_build_object(schedule.tick_argument, due.iso) END,
           schedule.queue, schedule.priority,
           -- Never before this moment (worker/cursor.py); the tick's own time stands in the headers.
           clock_timestamp(),
           schedule.max_attempts, schedule.timeout,
           schedule.headers || jsonb_build_object('jobq.schedule', schedule.name, 'jobq.tick', due.iso)
    FROM {schema}.schedule CROSS JOIN due
    WHERE schedule.name = %(name)s AND NOT EXISTS (
        SELECT FROM {schema}.schedule_tick WHERE schedule_tick.schedule = %(name)s AND schedule_tick.tick = due.tick)
    ORDER BY due.tick
    RETURNING id, headers ->> 'jobq.tick' AS iso
), ticked AS (
    INSERT INTO {schema}.schedule_tick (schedule, tick, job_id)
    SELECT %(name)s, iso::timestamptz, id FROM inserted
)
UPDATE {schema}.schedule
SET next_at = %(next_at)s::timestamptz, last_error = NULL,
    last_tick = coalesce((SELECT max(tick) FROM due), last_tick),
    last_job_id = coalesce((SELECT id FROM inserted ORDER BY iso::timestamptz DESC LIMIT 1), last_job_id)
WHERE name = %(name)s
RETURNING (SELECT count(*) FROM inserted)
