-- The schedules that schedule_withdraw.sql would withdraw, one after the other where all together are refused.
SELECT name FROM {schema}.schedule
WHERE source = 'code' AND withdrawn_at IS NULL
    AND EXISTS (
        SELECT FROM {schema}.worker
        WHERE worker.app = schedule.app AND worker.heartbeat_at > clock_timestamp() - interval '1 minute')
    AND NOT EXISTS (SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules))
ORDER BY name
