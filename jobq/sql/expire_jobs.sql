-- Finishes jobs as expired, which expired_jobs.sql has locked in this transaction, and lets their keys go that held until the job
-- started or finished. Returns how many there were.
-- Plan: job_pkey; job_key_pkey for each job with a key; no Sort, no Seq Scan on job.
WITH gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY (%(ids)s)
    RETURNING id, claims, attempt, max_attempts, priority, crashes, queue, task, run_at, created_at, started_at, timeout,
              key, key_holds, key_scope, group_key, args, headers, state
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT queue, group_key FROM gone WHERE state = 'waiting' AND group_key IS NOT NULL
    RETURNING queue
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM (SELECT DISTINCT queue FROM turned) AS fresh
), released AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY(ARRAY(SELECT key FROM gone WHERE key IS NOT NULL))
      AND job_id = ANY(ARRAY(SELECT id FROM gone WHERE key IS NOT NULL))
      AND holds <> 'period'
), kept AS (
    INSERT INTO {schema}.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                      created_at, started_at, finished_at, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'expired', run_at, created_at, started_at,
           clock_timestamp(), timeout, key, key_holds, key_scope, group_key, 'expired', args, headers
    FROM gone
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM woken)
