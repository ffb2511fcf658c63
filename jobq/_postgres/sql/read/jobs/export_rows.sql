-- Returns these jobs with all their data, newest first, for an export: a few at a time.
-- Plan: job_pkey, and job_history_id_idx of each partition.
SELECT id, task, queue, CASE WHEN state = 'ready' AND run_at > statement_timestamp() THEN 'scheduled' ELSE state END AS state,
       priority, attempt, max_attempts, crashes, run_at, created_at, started_at, NULL::timestamptz AS finished_at,
       expires_at, cancel_requested_at, worker_id, timeout, key, group_key, NULL::text AS error, args::text AS args,
       headers::text AS headers, NULL::text AS result
FROM {schema}.job
WHERE id = ANY (%(ids)s::bigint[])
UNION ALL
SELECT id, task, queue, state, priority, attempt, max_attempts, crashes, run_at, created_at, started_at, finished_at,
       NULL, NULL, worker_id, timeout, key, group_key, error, args::text, headers::text, result::text
FROM {schema}.job_history
WHERE id = ANY (%(ids)s::bigint[])
ORDER BY id DESC
