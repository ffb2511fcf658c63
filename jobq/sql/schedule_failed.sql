-- Why a schedule does not tick. Written once: whoever looks again and finds the same writes nothing.
UPDATE {schema}.schedule SET last_error = %(error)s WHERE name = %(name)s AND last_error IS DISTINCT FROM %(error)s
RETURNING name
