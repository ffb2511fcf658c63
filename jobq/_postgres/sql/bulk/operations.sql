-- Returns bulk operations with an id below `before`, newest first.
-- Plan: operation_pkey backwards.
SELECT operation.*, clock_timestamp() AS read_at FROM {schema}.operation WHERE id < %(before)s ORDER BY id DESC LIMIT %(limit)s
