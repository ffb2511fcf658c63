-- Removes the limit of one group. Its row stays only while it records the use of the group's rate.
-- Plan: rate_state_pkey, twice.
WITH gone AS (
    DELETE FROM {schema}.rate_state
    WHERE queue = %(queue)s::text AND group_key = %(group)s::text
      AND (paid_until IS NULL OR paid_until <= statement_timestamp())
    RETURNING 1
), kept AS (
    UPDATE {schema}.rate_state SET max_running = NULL
    WHERE queue = %(queue)s::text AND group_key = %(group)s::text AND paid_until > statement_timestamp()
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM kept)
