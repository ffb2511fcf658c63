-- Adds a user of the page, and records it in the audit. No row: the name is taken.
-- Plan: web_user_pkey.
WITH added AS (
    INSERT INTO {schema}.web_user (name, role, password_hash)
    VALUES (%(name)s, %(role)s, %(password_hash)s)
    ON CONFLICT (name) DO NOTHING
    RETURNING name, role
), noted AS (
    INSERT INTO {schema}.audit (at, actor, action, target, after)
    SELECT clock_timestamp(), %(actor)s, 'user_add', jsonb_build_object('user', name), jsonb_build_object('role', role)
    FROM added
)
SELECT name FROM added
