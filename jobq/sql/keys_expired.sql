-- Locks a batch of keys whose period is over, those over the longest first, but for those `aside`; keys in use are skipped. Returns
-- them, and the latest end of a period among them as text, for the next batch: `since` spares it the dead entries that this one
-- leaves.
-- Plan: job_key_until_idx under LockRows and Limit, in its order; no Sort, no Seq Scan.
WITH old AS MATERIALIZED (
    SELECT key, until FROM {schema}.job_key
    WHERE until >= %(since)s::timestamptz AND until <= now() AND key <> ALL (%(aside)s::text[])
    ORDER BY until
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
)
SELECT ARRAY(SELECT key FROM old), (SELECT max(until)::text FROM old)
