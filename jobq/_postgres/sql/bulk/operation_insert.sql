-- Inserts a bulk operation that is being previewed. Its time is set after `up_to` was read: jobs
-- that finished since then are not part of it.
INSERT INTO {schema}.operation (up_to, action, filter, options, actor, role, address, created_at)
VALUES (%(up_to)s, %(action)s, %(filter)s, %(options)s::jsonb, %(actor)s, %(role)s, %(address)s, clock_timestamp())
RETURNING id, up_to, created_at
