-- Deletes finished jobs, the records of their attempts, and the keys that they hold.
-- Plan: job_history_id_idx of each partition, twice; job_key_pkey; job_attempt_job_id_idx of each partition.
WITH chosen AS MATERIALIZED (
    SELECT id FROM {schema}.job_history
    WHERE id = ANY(%(ids)s)
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job_history WHERE id = ANY(ARRAY(SELECT id FROM chosen)) RETURNING id, task, queue, state, key
), released AS (
    DELETE FROM {schema}.job_key AS taken
    USING gone
    WHERE taken.key = gone.key AND taken.job_id = gone.id
), attempts AS (
    DELETE FROM {schema}.job_attempt WHERE job_id = ANY(ARRAY(SELECT id FROM gone))
)
SELECT id, jsonb_build_object('state', state, 'task', task, 'queue', queue) AS before, NULL AS after FROM gone
