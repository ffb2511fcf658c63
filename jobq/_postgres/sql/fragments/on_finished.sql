-- What else is written when jobs end, in the same statement and the same commit: the results of
-- workflows' nodes. The trigger of workflow_result does the rest (functions/workflows/workflow_results_added.sql).
--
-- It stands after the CTE `finished` in every statement that ends jobs. So it begins with a comma
-- and consists of whole CTEs.
-- `finished` has exactly one row for each job that ends: `id`; `state`: succeeded, failed,
-- cancelled, expired, or deleted (by an operator, before it ran: it has no history); `started_at`,
-- `finished_at`, `result` and `error`; `node_id` and `node_item`; `queue`, `task`, `key` and
-- `group_key`.
-- A CTE that only reads is not executed unless another one reads it. All CTEs see the database as
-- it was before the statement.
-- It runs with the rights of the role that ends the job: a worker's, an operator's, or that of a
-- transactional task's connection.
-- A result that is there already has been counted: DO NOTHING, so that no end counts twice.
, on_finished AS (
    INSERT INTO {schema}.workflow_result (node_id, item, job_id, state, started_at, finished_at, result, error)
    SELECT node_id, node_item, id, state, started_at, finished_at, result, error
    FROM finished WHERE node_id IS NOT NULL
    ON CONFLICT DO NOTHING
)
