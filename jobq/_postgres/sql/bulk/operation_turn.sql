-- Changes the state of an operation.
-- Plan: operation_pkey.
UPDATE {schema}.operation
SET state = %(state)s::text, error = %(error)s,
    finished_at = CASE WHEN %(state)s::text IN ('done', 'cancelled') THEN clock_timestamp() END,
    progressed_at = CASE WHEN %(state)s::text = 'running' THEN clock_timestamp() ELSE progressed_at END
WHERE id = %(id)s
RETURNING operation.*, clock_timestamp() AS read_at
