-- Clears what claims have learned about the first jobs of a queue's groups, because it was learned
-- under another rule.
-- Plan: rate_state_pkey, the queue's rows.
WITH changed AS (
    UPDATE {schema}.rate_state SET head_id = NULL, head_at = NULL
    WHERE queue = %(queue)s::text AND group_key > '' AND (head_id IS NOT NULL OR head_at IS NOT NULL)
    RETURNING 1
)
SELECT count(*) FROM changed
