-- Locks a batch of keys whose period is over, those over the longest first, but for those of the jobs `aside`; keys in use are
-- skipped. Returns their jobs, the keys, and the latest end of a period among them as text, for the next batch: `since` spares it
-- the dead entries that this one leaves.
-- Plan: job_key_until_idx under LockRows and Limit, in its order; no Sort, no Seq Scan.
WITH old AS MATERIALIZED (
    SELECT key, job_id, until FROM {schema}.job_key
    WHERE until >= %(since)s::timestamptz AND until <= now() AND job_id <> ALL (%(aside)s::bigint[])
    ORDER BY until
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
)
SELECT ARRAY(SELECT job_id FROM old), ARRAY(SELECT key FROM old), (SELECT max(until)::text FROM old)
