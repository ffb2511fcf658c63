-- Deletes live jobs that are not running, the records of their attempts, their keys, their steps and the signals to them. The children
-- of durable jobs are cancelled. What is sent or stored at the same moment is left to retention (maintenance/step_retention.py).
-- Plan: job_pkey, twice; job_key_pkey for each job with a key; job_attempt_job_id_idx of each partition; job_step_pkey; job_signal_job_idx.
WITH chosen AS MATERIALIZED (
    SELECT id, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
    FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running'
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING job.id, job.task, job.queue, job.key, job.group_key, 'deleted' AS state, job.state = 'waiting' AS waiting,
              job.node_id, job.node_item, job.started_at, clock_timestamp() AS finished_at, NULL::jsonb AS result, 'deleted' AS error
)
--include on_finished
, turned AS (
    --include group_ready jobs=finished when=waiting
    RETURNING queue
), children AS MATERIALIZED (
    SELECT {schema}.cancel_children(ARRAY(SELECT id FROM finished))
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM turned) AS fresh
), freed AS (
    --include delete_keys jobs=finished
), attempts AS (
    DELETE FROM {schema}.job_attempt WHERE job_id = ANY(ARRAY(SELECT id FROM finished))
), steps AS (
    DELETE FROM {schema}.job_step WHERE job_id = ANY(ARRAY(SELECT id FROM finished))
), signals AS (
    DELETE FROM {schema}.job_signal WHERE job_id = ANY(ARRAY(SELECT id FROM finished))
)
SELECT finished.id, jsonb_build_object('state', chosen.state, 'task', finished.task, 'queue', finished.queue) AS before, NULL AS after
FROM finished JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) + (SELECT count(*) FROM children) >= 0
