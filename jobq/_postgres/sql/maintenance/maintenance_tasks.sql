-- The maintenance chores. A handful of rows, read whole.
SELECT name, due_at, last_run_at, last_worker, last_report, last_error,
       greatest(extract(epoch FROM clock_timestamp() - due_at), 0)::double precision AS overdue_seconds
FROM {schema}.chore
ORDER BY name
LIMIT 1000
