-- Returns the bulk operations with batches left to do, oldest first, among the newest thousand.
-- Plan: operation_pkey backwards.
SELECT id FROM (SELECT id, state FROM {schema}.operation ORDER BY id DESC LIMIT 1000) AS newest
WHERE state = 'running'
ORDER BY id
