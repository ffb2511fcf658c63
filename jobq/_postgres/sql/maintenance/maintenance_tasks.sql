-- Returns the maintenance tasks. The table has a handful of rows and is read whole.
SELECT name, due_at, last_run_at, last_worker, last_report, last_error,
       greatest(extract(epoch FROM clock_timestamp() - due_at), 0)::double precision AS overdue_seconds
FROM {schema}.maintenance_task
ORDER BY name
LIMIT 1000
