-- Removes the limits of single groups. An ordered queue cannot have them: it runs one job of each
-- group at a time.
-- Plan: rate_state_pkey, the queue's rows.
WITH changed AS (
    UPDATE {schema}.rate_state SET max_running = NULL
    WHERE queue = %(queue)s::text AND group_key > '' AND max_running IS NOT NULL
    RETURNING 1
)
SELECT count(*) FROM changed
