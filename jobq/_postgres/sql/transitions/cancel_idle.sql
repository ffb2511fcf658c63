-- Finishes jobs that are not running as cancelled, and releases their keys that are held until the
-- start or the end. The children of durable jobs are cancelled with them. A durable job with steps to
-- undo is left to cancel_running.sql. Other jobs of the group no longer wait for an earlier one, and their workers
-- are notified.
-- Plan: job_pkey, twice; job_step_pkey; job_key_pkey for each job with a key.
WITH chosen AS MATERIALIZED (
    SELECT id, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
    FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running' AND NOT
        --include steps/has_undo job=job.id
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, job.started_at, 'cancelled' AS state, clock_timestamp() AS finished_at,
        NULL::jsonb AS result, %(error)s::text AS error, job.state = 'waiting' AS waiting
)
--include finish jobs=finished
, turned AS (
    --include group_ready jobs=finished when=waiting
    RETURNING queue
), children AS MATERIALIZED (
    SELECT {schema}.cancel_children(ARRAY(SELECT id FROM finished))
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM turned) AS fresh
)
SELECT finished.id, jsonb_build_object('state', chosen.state) AS before, jsonb_build_object('state', finished.state) AS after
FROM finished JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) + (SELECT count(*) FROM children) >= 0
