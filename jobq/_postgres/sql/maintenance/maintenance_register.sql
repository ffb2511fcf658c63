-- Inserts rows for maintenance tasks that have none yet. They are due at once.
INSERT INTO {schema}.maintenance_task (name) SELECT unnest(%(names)s::text[]) ORDER BY 1 ON CONFLICT DO NOTHING
