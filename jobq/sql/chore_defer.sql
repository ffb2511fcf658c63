-- A chore that is about to be done and commits in between: others leave it alone until then.
UPDATE {schema}.chore SET due_at = clock_timestamp() + %(again)s::interval WHERE name = %(name)s
