-- Returns one bulk operation.
-- Plan: operation_pkey.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id = %(id)s
