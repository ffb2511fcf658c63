-- The common part of every statement that ends jobs, after the CTE `finished` (see
-- finished_columns.sql): it keeps the jobs in history, releases their keys, and includes
-- `on_finished`. $jobs is `finished`, or those of its jobs that have a key.
, kept AS (
    --include history_row
), freed AS (
    --include release_keys jobs=$jobs
)
--include on_finished
