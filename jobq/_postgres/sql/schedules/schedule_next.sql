-- Returns the seconds until the next schedule is due; 0 or less: one is due now. No row: none will
-- be due.
-- Plan: schedule_next_idx from its beginning, to the first that ticks.
SELECT extract(epoch FROM greatest(schedule.next_at, 'epoch') - clock_timestamp())::double precision
FROM {schema}.schedule
WHERE schedule.paused_at IS NULL AND schedule.withdrawn_at IS NULL
    AND NOT schedule.name = ANY (%(skip)s::text[])
    AND (schedule.source = 'runtime' OR EXISTS (
        SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules)))
ORDER BY schedule.next_at
LIMIT 1
