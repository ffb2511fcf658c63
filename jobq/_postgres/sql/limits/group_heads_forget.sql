-- Forgets what claims know of the first jobs of a queue's groups: that was learned under another rule.
-- Plan: gate_pkey, the queue's rows.
WITH changed AS (
    UPDATE {schema}.gate SET head_id = NULL, head_at = NULL
    WHERE queue = %(queue)s::text AND group_key > '' AND (head_id IS NOT NULL OR head_at IS NOT NULL)
    RETURNING 1
)
SELECT count(*) FROM changed
