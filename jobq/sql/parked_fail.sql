-- Ends parked jobs as failed, which parked_overdue.sql has locked in this transaction. Returns how many.
-- Plan: job_pkey; no Seq Scan on job.
WITH gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY (%(ids)s)
    RETURNING id, claims, attempt, max_attempts, priority, crashes, queue, task, run_at, created_at, timeout, key, key_holds, key_scope, group_key,
              args, headers, parked_reason, parked_at
), released AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM gone WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM gone WHERE key IS NOT NULL))
      AND holds <> 'period'
), attempts AS (
    INSERT INTO {schema}.job_attempt (job_id, claims, attempt, outcome, started_at, error_type, message)
    SELECT id, claims, attempt + 1, 'failed', parked_at, 'jobq.errors.InvalidArguments', parked_reason FROM gone
), kept AS (
    INSERT INTO {schema}.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                      created_at, finished_at, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt + 1, max_attempts, priority, crashes, queue, task, 'failed', run_at, created_at,
           clock_timestamp(), timeout, key, key_holds, key_scope, group_key, parked_reason, args, headers
    FROM gone
)
SELECT count(*) FROM gone
