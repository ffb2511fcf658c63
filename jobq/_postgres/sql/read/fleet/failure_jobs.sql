-- Returns dead letters by id, latest failures first, as lists show them.
-- Plan: job_history_id_idx of the failed partitions, once per id.
SELECT id, task, queue, state, priority, attempt, max_attempts, run_at, created_at, started_at, finished_at,
       NULL::timestamptz AS cancel_requested_at, worker_id, key, "left"(error, 500) AS error,
       CASE WHEN pg_column_size(args) <= 2000 THEN args::text END AS args, NULL::text AS progress, group_key
FROM {schema}.job_history
WHERE state = 'failed' AND id = ANY (%(ids)s::bigint[])
ORDER BY finished_at DESC, id DESC
