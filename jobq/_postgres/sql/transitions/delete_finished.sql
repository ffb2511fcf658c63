-- Deletes finished jobs, the records of their attempts, the keys that they hold, their steps and the signals to them.
-- Plan: job_history_id_idx of each partition, twice; job_key_pkey; job_attempt_job_id_idx of each partition; job_step_pkey;
-- job_signal_job_idx.
WITH chosen AS MATERIALIZED (
    SELECT id FROM {schema}.job_history
    WHERE id = ANY(%(ids)s)
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job_history WHERE id = ANY(ARRAY(SELECT id FROM chosen)) RETURNING id, task, queue, state, key
), released AS (
    --include delete_keys jobs=gone
), attempts AS (
    DELETE FROM {schema}.job_attempt WHERE job_id = ANY(ARRAY(SELECT id FROM gone))
), steps AS (
    DELETE FROM {schema}.job_step WHERE job_id = ANY(ARRAY(SELECT id FROM gone))
), signals AS (
    DELETE FROM {schema}.job_signal WHERE job_id = ANY(ARRAY(SELECT id FROM gone))
)
SELECT id, jsonb_build_object('state', state, 'task', task, 'queue', queue) AS before, NULL AS after FROM gone
