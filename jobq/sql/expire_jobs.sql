-- Finishes a batch of jobs that do not run and whose time has passed as expired, and lets their keys go that held until the job
-- started or finished. Jobs that somebody has locked are left for the next time. `since`: where the batch before this one ended,
-- so that the dead entries that it left are not walked over.
-- Returns how many there were; the latest expires_at among them as text, for the next batch; and whether there are jobs that
-- will expire.
-- Plan: job_expires_idx under LockRows and Limit, in its order, and one entry of it; job_pkey; job_key_pkey for each job with a key; no Sort, no Seq
-- Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT id, expires_at
    FROM {schema}.job
    WHERE expires_at >= %(since)s::timestamptz AND expires_at <= now() AND state <> 'running'
    ORDER BY expires_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, claims, attempt, max_attempts, priority, crashes, queue, task, run_at, created_at, started_at, timeout,
              key, key_holds, group_key, args, headers, state
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
                                      created_at, started_at, finished_at, timeout, key, key_holds, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'expired', run_at, created_at, started_at,
           clock_timestamp(), timeout, key, key_holds, group_key, 'expired', args, headers
    FROM gone
)
SELECT (SELECT count(*) FROM gone), (SELECT max(expires_at)::text FROM chosen),
       (SELECT expires_at FROM {schema}.job WHERE expires_at > now() AND state <> 'running' ORDER BY expires_at LIMIT 1) IS NOT NULL,
       (SELECT count(*) FROM woken)
