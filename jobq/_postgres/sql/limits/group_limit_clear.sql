-- Takes the limit of one group away; its row stays only while it tells how far the group's rate is used up.
-- Plan: gate_pkey, twice.
WITH gone AS (
    DELETE FROM {schema}.gate
    WHERE queue = %(queue)s::text AND group_key = %(group)s::text
      AND (paid_until IS NULL OR paid_until <= statement_timestamp())
    RETURNING 1
), kept AS (
    UPDATE {schema}.gate SET max_running = NULL
    WHERE queue = %(queue)s::text AND group_key = %(group)s::text AND paid_until > statement_timestamp()
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM kept)
