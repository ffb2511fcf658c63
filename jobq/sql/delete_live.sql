-- Deletes live jobs that do not run, the records of their attempts, and their keys.
-- Plan: job_pkey, twice; job_key_pkey for each job with a key; job_attempt_job_id_idx of each partition.
WITH chosen AS MATERIALIZED (
    SELECT id, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
    FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running'
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job WHERE id = ANY(ARRAY(SELECT id FROM chosen)) RETURNING id, task, queue, key, group_key, state
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT queue, group_key FROM gone WHERE state = 'waiting' AND group_key IS NOT NULL
    RETURNING queue
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM (SELECT DISTINCT queue FROM turned) AS fresh
), released AS (
    DELETE FROM {schema}.job_key AS taken
    USING gone
    WHERE taken.key = gone.key AND taken.job_id = gone.id
), attempts AS (
    DELETE FROM {schema}.job_attempt WHERE job_id = ANY(ARRAY(SELECT id FROM gone))
)
SELECT gone.id, jsonb_build_object('state', chosen.state, 'task', gone.task, 'queue', gone.queue) AS before, NULL AS after
FROM gone JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
