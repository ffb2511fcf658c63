-- Removes a schedule. Its ticks go when they are old.
DELETE FROM {schema}.schedule WHERE name = %(name)s
