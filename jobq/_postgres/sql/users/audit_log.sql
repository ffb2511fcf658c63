-- Returns operators' actions with id < `before`, newest first, optionally of one actor and one
-- kind.
-- Plan: audit_pkey backwards, skipping entries that do not match: the table holds only actions of
-- people.
SELECT id, at, actor, action, target, reason, role, address, before, after
FROM {schema}.audit
WHERE id < %(before)s
  AND (%(actor)s::text IS NULL OR actor = %(actor)s::text)
  AND (%(action)s::text IS NULL OR action = %(action)s::text)
ORDER BY id DESC
LIMIT %(limit)s
