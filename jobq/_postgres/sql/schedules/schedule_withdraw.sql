-- Schedules whose application has live workers, of which none declares them any more: they stop ticking. Those of an
-- application without a live worker are left alone: it may come back, and make up for what it missed. All of them, or those of `only`.
UPDATE {schema}.schedule SET withdrawn_at = now()
WHERE source = 'code' AND withdrawn_at IS NULL
    AND (%(only)s::text[] IS NULL OR name = ANY (%(only)s::text[]))
    AND EXISTS (
        SELECT FROM {schema}.worker
        WHERE worker.app = schedule.app AND worker.heartbeat_at > clock_timestamp() - interval '1 minute')
    -- Any row: after an outage of the database the one that declares it may be the last to heartbeat again. A dead one's is
    -- taken away by the worker that rescues its jobs.
    AND NOT EXISTS (SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules))
RETURNING name
