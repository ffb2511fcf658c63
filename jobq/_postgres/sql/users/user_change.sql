-- Changes a user's role (NULL: keep it) or password (NULL: keep it), which ends their sessions, and
-- records it in the audit. No row: there is no such user.
-- Plan: web_user_pkey.
WITH known AS (
    SELECT name, role FROM {schema}.web_user WHERE name = %(name)s FOR UPDATE
), changed AS (
    UPDATE {schema}.web_user AS entry
    SET role = coalesce(%(role)s, entry.role),
        password_hash = coalesce(%(password_hash)s, entry.password_hash),
        changed_at = clock_timestamp()
    FROM known
    WHERE entry.name = known.name
    RETURNING entry.name, known.role AS role_before, entry.role AS role_after
), noted AS (
    INSERT INTO {schema}.audit (at, actor, action, target, before, after)
    SELECT clock_timestamp(), %(actor)s, %(action)s, jsonb_build_object('user', name),
           jsonb_build_object('role', role_before), jsonb_build_object('role', role_after)
    FROM changed
)
SELECT name FROM changed
