-- Deletes a batch of keys whose period is over, those over the longest first; keys in use are skipped. Returns how many, and the
-- latest end of a period among them as text, for the next batch: `since` spares it the dead entries that this one leaves.
-- Plan: job_key_until_idx under LockRows and Limit, in its order; job_key_pkey; no Sort, no Seq Scan.
WITH old AS MATERIALIZED (
    SELECT key, until FROM {schema}.job_key
    WHERE until >= %(since)s::timestamptz AND until <= now()
    ORDER BY until
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job_key WHERE key = ANY (ARRAY(SELECT key FROM old)) AND until <= now()
    RETURNING key
)
SELECT (SELECT count(*) FROM gone), (SELECT max(until)::text FROM old)
