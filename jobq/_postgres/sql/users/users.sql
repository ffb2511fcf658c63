-- Returns the users of the page, without their passwords. There are few.
SELECT name, role, created_at, changed_at FROM {schema}.web_user ORDER BY name
