-- Returns the outcome of each job of an operation, from the batch after `after` on.
-- Plan: operation_batch_pkey.
SELECT n, at, done, refused FROM {schema}.operation_batch
WHERE operation_id = %(id)s AND n > %(after)s
ORDER BY n
LIMIT %(limit)s
