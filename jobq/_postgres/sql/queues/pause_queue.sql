-- Pauses a queue. If it is already paused, nothing changes and no row is returned.
-- Plan: queue_pkey.
INSERT INTO {schema}.queue AS entry (name, paused_at, paused_by, pause_reason)
VALUES (%(queue)s, clock_timestamp(), %(actor)s, %(reason)s)
ON CONFLICT (name) DO UPDATE
SET paused_at = excluded.paused_at, paused_by = excluded.paused_by, pause_reason = excluded.pause_reason
WHERE entry.paused_at IS NULL
RETURNING jsonb_build_object('paused', false) AS before,
          jsonb_build_object('paused', true, 'by', entry.paused_by, 'reason', entry.pause_reason) AS after
