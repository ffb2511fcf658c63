-- Rows for chores that have none yet; they are due at once.
INSERT INTO {schema}.chore (name) SELECT unnest(%(names)s::text[]) ORDER BY 1 ON CONFLICT DO NOTHING
