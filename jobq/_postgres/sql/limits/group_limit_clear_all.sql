-- Takes the limits of single groups away, which an ordered queue cannot have: it runs one job of each at a time.
-- Plan: gate_pkey, the queue's rows.
WITH changed AS (
    UPDATE {schema}.gate SET max_running = NULL
    WHERE queue = %(queue)s::text AND group_key > '' AND max_running IS NOT NULL
    RETURNING 1
)
SELECT count(*) FROM changed
