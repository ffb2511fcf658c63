-- Writes the counts of the preview.
-- Plan: operation_pkey.
UPDATE {schema}.operation SET expected = %(expected)s::bigint, counted = %(counted)s
WHERE id = %(id)s
RETURNING operation.*, clock_timestamp() AS read_at
