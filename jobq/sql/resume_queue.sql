-- Lets a paused queue go on. No row when it was not paused.
-- Plan: queue_pkey.
UPDATE {schema}.queue SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
WHERE name = %(queue)s AND paused_at IS NOT NULL
RETURNING name
