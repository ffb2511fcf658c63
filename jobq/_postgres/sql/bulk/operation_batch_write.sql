-- Writes the outcome of each job of a batch. The operation's row is locked, so no other process
-- counts.
-- Plan: operation_batch_pkey backwards, one row.
INSERT INTO {schema}.operation_batch (operation_id, n, at, done, refused)
VALUES (%(id)s,
        coalesce((SELECT n FROM {schema}.operation_batch WHERE operation_id = %(id)s ORDER BY n DESC LIMIT 1), 0) + 1,
        clock_timestamp(), %(done)s::bigint[], %(refused)s::jsonb)
