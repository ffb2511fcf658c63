-- Starts a draft in the name of the actor that starts it.
-- Plan: operation_pkey.
UPDATE {schema}.operation
SET state = 'running', rate = %(rate)s::double precision, reason = %(reason)s, actor = %(actor)s, role = %(role)s,
    address = %(address)s, started_at = clock_timestamp(), progressed_at = clock_timestamp()
WHERE id = %(id)s
RETURNING operation.*, clock_timestamp() AS read_at
