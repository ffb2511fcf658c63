-- Withdraws schedules that no live worker of their application declares any more: they stop
-- ticking. Schedules of an application without a live worker stay: it may come back, and
-- make up for missed ticks. Applies to all schedules, or to those of `only`.
UPDATE {schema}.schedule SET withdrawn_at = now()
WHERE source = 'code' AND withdrawn_at IS NULL
    AND (%(only)s::text[] IS NULL OR name = ANY (%(only)s::text[]))
    AND EXISTS (
        SELECT FROM {schema}.worker
        WHERE worker.app = schedule.app AND worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second')
    -- Any row, live or not: after an outage of the database, the worker that declares the schedule
    -- may be the last to send a heartbeat. The row of a dead worker is deleted by the worker that
    -- rescues its jobs.
    AND NOT EXISTS (SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules))
RETURNING name
