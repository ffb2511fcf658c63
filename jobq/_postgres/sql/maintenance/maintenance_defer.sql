-- Defers a maintenance task that is about to run and commits in between, so that other workers
-- leave it alone during that time.
UPDATE {schema}.maintenance_task SET due_at = clock_timestamp() + %(again)s::interval WHERE name = %(name)s
