-- Locks and returns one bulk operation for a batch. Returns no row while another process does a
-- batch.
-- Plan: operation_pkey.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id = %(id)s FOR UPDATE SKIP LOCKED
