-- Writes why a schedule does not tick. If a worker looks again and finds the same error, it writes
-- nothing.
UPDATE {schema}.schedule SET last_error = %(error)s WHERE name = %(name)s AND last_error IS DISTINCT FROM %(error)s
RETURNING name
