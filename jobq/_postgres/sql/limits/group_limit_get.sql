-- Returns the limit of one group. No row or NULL: it has none of its own.
-- Plan: rate_state_pkey.
SELECT max_running FROM {schema}.rate_state WHERE queue = %(queue)s::text AND group_key = %(group)s::text
