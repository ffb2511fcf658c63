-- Returns the schedules that schedule_withdraw.sql would withdraw. If all together are refused,
-- they are withdrawn one by one.
SELECT name FROM {schema}.schedule
WHERE source = 'code' AND withdrawn_at IS NULL
    AND EXISTS (
        SELECT FROM {schema}.worker
        WHERE worker.app = schedule.app AND worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second')
    AND NOT EXISTS (SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules))
ORDER BY name
