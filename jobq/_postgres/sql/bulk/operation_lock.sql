-- One bulk operation, to be changed: waits for the batch under way.
-- Plan: operation_pkey.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id = %(id)s FOR UPDATE
