-- Operators' actions with id < `before`, newest first; of one actor, of one kind.
-- Plan: audit_pkey backwards, past what is not wanted: a table that people fill.
SELECT id, at, actor, action, target, reason, role, address, before, after
FROM {schema}.audit
WHERE id < %(before)s
  AND (%(actor)s::text IS NULL OR actor = %(actor)s::text)
  AND (%(action)s::text IS NULL OR action = %(action)s::text)
ORDER BY id DESC
LIMIT %(limit)s
