-- One bulk operation, to do a batch of it: no row while another does one.
-- Plan: operation_pkey.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id = %(id)s FOR UPDATE SKIP LOCKED
