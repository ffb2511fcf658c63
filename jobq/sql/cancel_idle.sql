-- Finishes jobs that do not run as cancelled, and lets their keys go that held until the job started or finished. The others of
-- its group no longer wait for one that was before them, and their workers are woken.
-- Plan: job_pkey, twice; job_key_pkey for each job with a key.
WITH chosen AS MATERIALIZED (
    SELECT id, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
    FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running'
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, claims, attempt, max_attempts, priority, crashes, queue, task, run_at, created_at, started_at, timeout,
              key, key_holds, key_scope, group_key, args, headers, state
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT queue, group_key FROM gone WHERE state = 'waiting' AND group_key IS NOT NULL
    RETURNING queue
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM (SELECT DISTINCT queue FROM turned) AS fresh
), released AS (
    DELETE FROM {schema}.job_key AS taken
    USING gone
    WHERE taken.key = gone.key AND taken.job_id = gone.id AND taken.holds <> 'period'
), kept AS (
    INSERT INTO {schema}.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                      created_at, started_at, finished_at, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'cancelled', run_at, created_at, started_at,
           clock_timestamp(), timeout, key, key_holds, key_scope, group_key, %(error)s, args, headers
    FROM gone
    ORDER BY id
    RETURNING id, state
)
SELECT kept.id, jsonb_build_object('state', chosen.state) AS before, jsonb_build_object('state', kept.state) AS after
FROM kept JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
