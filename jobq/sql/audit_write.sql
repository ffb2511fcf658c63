-- One operator's action.
INSERT INTO {schema}.audit (at, actor, action, target, reason)
VALUES (clock_timestamp(), %(actor)s, %(action)s, %(target)s::jsonb, %(reason)s)
