-- Locks, for the transaction, the schedule that has been due for longest and that no other worker
-- is looking at.
-- Plan: schedule_next_idx from its beginning up to now. One that no live worker declares is passed over there: a handful.
SELECT schedule.name, schedule.cron,
       -- Only times that Python can hold: a row written by hand must not block the rows behind it.
       CASE WHEN schedule.every IS NOT NULL THEN least(greatest(schedule.every, '-1 day'), '40000 days') END,
       schedule.timezone, schedule.missed, schedule.max_missed,
       CASE WHEN schedule.next_at > 'epoch' THEN schedule.next_at END, coalesce(%(now)s::timestamptz, clock_timestamp())
FROM {schema}.schedule
WHERE schedule.paused_at IS NULL AND schedule.withdrawn_at IS NULL
    -- Not clock_timestamp(): an index cannot be read by it.
    AND schedule.next_at <= coalesce(%(now)s::timestamptz, statement_timestamp())
    AND NOT schedule.name = ANY (%(skip)s::text[])
    AND (schedule.source = 'runtime' OR EXISTS (
        SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules)))
ORDER BY schedule.next_at
LIMIT 1
FOR NO KEY UPDATE OF schedule SKIP LOCKED
