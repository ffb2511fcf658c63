-- Every dispatcher's last heartbeat. Age is told by the server's clock.
-- Plan: the worker table is as small as the fleet and is read whole.
SELECT id, host, pid, version, app, state, queues, tasks, slots, running, asked, rss, problems, started_at, heartbeat_at,
       greatest(extract(epoch FROM clock_timestamp() - heartbeat_at), 0)::double precision AS heartbeat_seconds, lease
FROM {schema}.worker
ORDER BY host, pid, id
LIMIT 1000
