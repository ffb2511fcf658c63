-- Deletes rate states of groups that are long paid for and hold nothing else: a missing row means
-- the same. The table is small: one row per group of a queue with a rate for its groups.
-- Plan: rate_state_pkey, read whole.
WITH gone AS (
    DELETE FROM {schema}.rate_state WHERE max_running IS NULL AND paid_until < now() - interval '1 minute' RETURNING 1
)
SELECT count(*) FROM gone
