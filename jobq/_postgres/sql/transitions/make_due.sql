-- Makes jobs due that wait for a retry or for their time, and notifies the workers of their queues.
-- Parked jobs go back to where they entered, so that any worker may claim them again: the record of
-- what refused them is cleared.
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, run_at, state FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND (state IN ('ready', 'waiting') AND run_at > clock_timestamp() OR state = 'parked')
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE {schema}.job
    SET run_at = clock_timestamp(),
        state = CASE WHEN state = 'parked' THEN {schema}.entry_state(queue, group_key) ELSE state END,
        parked_claims = NULL
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, run_at, state, group_key
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key) SELECT queue, group_key FROM moved WHERE state = 'waiting'
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM moved) AS fresh
)
SELECT moved.id, jsonb_build_object('run_at', chosen.run_at) AS before, jsonb_build_object('run_at', moved.run_at) AS after
FROM moved JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
