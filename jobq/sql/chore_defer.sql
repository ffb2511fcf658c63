-- Puts off a chore that is about to run and commits in between, so that other workers leave it alone meanwhile.
UPDATE {schema}.chore SET due_at = clock_timestamp() + %(again)s::interval WHERE name = %(name)s
