-- One due chore that no other worker is doing, locked for the transaction. The table has a handful of rows.
SELECT name FROM {schema}.chore
WHERE due_at <= now() AND name = ANY (%(names)s::text[])
ORDER BY due_at, name LIMIT 1 FOR UPDATE SKIP LOCKED
