-- What is set for one group alone; no row or NULL: nothing.
-- Plan: gate_pkey.
SELECT max_running FROM {schema}.gate WHERE queue = %(queue)s::text AND group_key = %(group)s::text
