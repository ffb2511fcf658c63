-- Operators' actions with id < `before`, newest first.
-- Plan: audit_pkey backwards.
SELECT id, at, actor, action, target, reason, role, address, before, after
FROM {schema}.audit
WHERE id < %(before)s
ORDER BY id DESC
LIMIT %(limit)s
