-- Pauses a schedule, unless it is already paused.
UPDATE {schema}.schedule SET paused_at = now(), paused_by = %(actor)s, pause_reason = %(reason)s
WHERE name = %(name)s AND paused_at IS NULL
RETURNING name
