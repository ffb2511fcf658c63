-- Resumes a paused queue. If it is not paused, no row is returned.
-- Plan: queue_pkey.
WITH paused AS MATERIALIZED (
    SELECT name, paused_by, pause_reason FROM {schema}.queue WHERE name = %(queue)s AND paused_at IS NOT NULL FOR UPDATE
)
UPDATE {schema}.queue SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
FROM paused
WHERE queue.name = paused.name
RETURNING jsonb_build_object('paused', true, 'by', paused.paused_by, 'reason', paused.pause_reason) AS before,
          jsonb_build_object('paused', false) AS after
