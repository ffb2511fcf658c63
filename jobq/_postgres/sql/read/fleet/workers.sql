-- Returns every dispatcher's last heartbeat. The age is by the server's clock. Names of tasks,
-- hundreds per worker, only on request.
-- Plan: the worker table is as small as the fleet and is read whole.
SELECT id, host, pid, version, app, state, queues, CASE WHEN %(tasks)s THEN tasks ELSE '{{}}' END AS tasks, slots, running,
       requested_state, rss, problems, started_at, heartbeat_at,
       greatest(extract(epoch FROM clock_timestamp() - heartbeat_at), 0)::double precision AS heartbeat_seconds, lease
FROM {schema}.worker
ORDER BY host, pid, id
LIMIT 1000
