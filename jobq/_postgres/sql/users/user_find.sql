-- Returns one user of the page, for the login.
-- Plan: web_user_pkey.
SELECT name, role, changed_at, password_hash FROM {schema}.web_user WHERE name = %(name)s
