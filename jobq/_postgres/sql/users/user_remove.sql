-- Removes a user of the page, and records it in the audit. No row: there is no such user.
-- Plan: web_user_pkey.
WITH removed AS (
    DELETE FROM {schema}.web_user WHERE name = %(name)s RETURNING name, role
), noted AS (
    INSERT INTO {schema}.audit (at, actor, action, target, before)
    SELECT clock_timestamp(), %(actor)s, 'user_remove', jsonb_build_object('user', name), jsonb_build_object('role', role)
    FROM removed
)
SELECT name FROM removed
