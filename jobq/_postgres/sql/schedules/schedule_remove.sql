-- Removes a schedule. Its ticks are deleted when they are old.
DELETE FROM {schema}.schedule WHERE name = %(name)s
