-- Why a schedule does not tick. Written once: a worker that looks again and finds the same error writes nothing.
UPDATE {schema}.schedule SET last_error = %(error)s WHERE name = %(name)s AND last_error IS DISTINCT FROM %(error)s
RETURNING name
