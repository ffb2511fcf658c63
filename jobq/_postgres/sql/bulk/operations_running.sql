-- The bulk operations that have to be stepped, oldest first, of the newest thousand.
-- Plan: operation_pkey backwards.
SELECT id FROM (SELECT id, state FROM {schema}.operation ORDER BY id DESC LIMIT 1000) AS newest
WHERE state = 'running'
ORDER BY id
