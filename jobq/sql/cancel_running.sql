-- Asks running jobs to stop. Their workers do it: at the notification, or at their next heartbeat at the latest.
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, cancel_requested_at FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state = 'running'
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), asked AS (
    UPDATE {schema}.job SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, cancel_requested_at
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'cancel') FROM (SELECT 1 FROM asked LIMIT 1) AS any_asked
)
SELECT asked.id, jsonb_build_object('state', 'running', 'cancel_requested_at', chosen.cancel_requested_at) AS before,
       jsonb_build_object('state', 'running', 'cancel_requested_at', asked.cancel_requested_at) AS after
FROM asked JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
