-- Locks and returns one due maintenance task that no other worker is running. The table has a
-- handful of rows.
SELECT name FROM {schema}.maintenance_task
WHERE due_at <= now() AND name = ANY (%(names)s::text[])
ORDER BY due_at, name LIMIT 1 FOR UPDATE SKIP LOCKED
