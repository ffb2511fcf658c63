-- Finished jobs of one state with `floor` <= id < `before`, newest first.
-- Plan: only that state's partitions; job_history_id_idx backwards in each, merged, until the page is full.
SELECT id, task, queue, state, priority, attempt, max_attempts, run_at, created_at, started_at, finished_at,
       NULL::timestamptz AS cancel_requested_at, worker_id, key, left(error, 500) AS error,
       CASE WHEN pg_column_size(args) <= 2000 THEN args::text END AS args, NULL::text AS progress
FROM {schema}.job_history
WHERE state = %(state)s AND id >= %(floor)s AND id < %(before)s
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)
  AND (%(task)s::text IS NULL OR task = %(task)s)
ORDER BY id DESC
LIMIT %(limit)s
