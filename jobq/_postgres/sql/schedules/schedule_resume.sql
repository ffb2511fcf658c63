-- Resumes a schedule with its next tick. Ticks during the pause are not made up for.
UPDATE {schema}.schedule SET paused_at = NULL, paused_by = NULL, pause_reason = NULL,
    next_at = coalesce(%(next_at)s::timestamptz, 'epoch')
WHERE name = %(name)s AND paused_at IS NOT NULL
RETURNING name
