-- Records one operator's action.
INSERT INTO {schema}.audit (at, actor, role, address, action, target, reason, before, after)
VALUES (clock_timestamp(), %(actor)s, %(role)s, %(address)s, %(action)s, %(target)s::jsonb, %(reason)s, %(before)s::jsonb,
        %(after)s::jsonb)
RETURNING id
