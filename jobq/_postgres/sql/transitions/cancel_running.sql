-- Requests that running jobs stop. Their workers stop them: at the notification, or at their next
-- heartbeat at the latest. A durable job that waits, and has steps to undo, is made due for that: a
-- worker undoes them and ends it.
-- Plan: job_pkey, twice; job_step_pkey.
WITH chosen AS MATERIALIZED (
    SELECT id, cancel_requested_at, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
    FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND (state = 'running' OR
        --include steps/has_undo job=job.id
        )
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), asked AS (
    UPDATE {schema}.job SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
        run_at = CASE WHEN state = 'running' THEN run_at ELSE least(run_at, clock_timestamp()) END
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, cancel_requested_at, state, queue, group_key
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, clock_timestamp() FROM asked WHERE state = 'waiting'
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'cancel') FROM (SELECT 1 FROM asked WHERE state = 'running' LIMIT 1) AS any_asked
    UNION ALL
    --include notify_queues
    (SELECT DISTINCT queue FROM asked WHERE state <> 'running') AS fresh
)
SELECT asked.id, jsonb_build_object('state', chosen.state, 'cancel_requested_at', chosen.cancel_requested_at) AS before,
       jsonb_build_object('state', chosen.state, 'cancel_requested_at', asked.cancel_requested_at) AS after
FROM asked JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
