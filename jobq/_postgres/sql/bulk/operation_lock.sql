-- Locks and returns one bulk operation that is about to be changed. Waits for the current batch.
-- Plan: operation_pkey.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id = %(id)s FOR UPDATE
