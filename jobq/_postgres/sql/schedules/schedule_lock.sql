-- Locks one schedule that an operator is about to change, and returns it with whether a live worker
-- declares it.
-- Plan: the key of schedule.
SELECT name, task, args::text AS args, queue, priority, max_attempts, timeout, headers::text AS headers, group_key, key,
       expires_in, cron,
       CASE WHEN every IS NOT NULL THEN least(greatest(every, '-1 day'), '40000 days') END AS every, timezone,
       missed, max_missed,
       tick_argument, source, app, paused_at, withdrawn_at,
       EXISTS (SELECT FROM {schema}.worker WHERE schedule.name = ANY (worker.schedules)
               AND worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second') AS declared
FROM {schema}.schedule WHERE name = %(name)s FOR UPDATE OF schedule
