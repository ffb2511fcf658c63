-- Returns the newest attempts of one job that did not succeed.
-- Plan: job_attempt_job_id_idx of each partition, then a sort of one job's rows.
SELECT claims, attempt, outcome, worker_id, started_at, finished_at, retry_at, error_type, message, traceback, log
FROM {schema}.job_attempt
WHERE job_id = %(id)s
ORDER BY finished_at DESC, claims DESC
LIMIT 100
