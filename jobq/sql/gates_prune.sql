-- Deletes what is only remembered of groups' rates and long paid for: a row that is not there says the same. Small: one row for
-- each group of a queue with a rate of its groups.
-- Plan: gate_pkey, read whole.
WITH gone AS (
    DELETE FROM {schema}.gate WHERE max_running IS NULL AND paid_until < now() - interval '1 minute' RETURNING 1
)
SELECT count(*) FROM gone
