-- Inserts the jobs of the CTE `finished` into history: see finished_columns.sql.
INSERT INTO {schema}.job_history (
    id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at, finished_at,
    worker_id, timeout, key, key_holds, key_scope, group_key, args, headers, result, error, node_id, node_item)
SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at, finished_at,
       worker_id, timeout, key, key_holds, key_scope, group_key, args, headers, result, error, node_id, node_item
FROM finished
