-- Locks a batch of keys whose period is over, oldest end first, except those of the jobs `aside`.
-- Skips locked keys.
-- Returns their jobs, the keys, and the latest end among them as text. The next batch passes it as
-- `since`, to avoid walking over the dead entries that this batch leaves.
-- Plan: job_key_until_idx under LockRows and Limit, in its order; no Sort, no Seq Scan.
WITH old AS MATERIALIZED (
    SELECT key, job_id, expires_at FROM {schema}.job_key
    WHERE expires_at >= %(since)s::timestamptz AND expires_at <= now() AND job_id <> ALL (%(aside)s::bigint[])
    ORDER BY expires_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
)
SELECT ARRAY(SELECT job_id FROM old), ARRAY(SELECT key FROM old), (SELECT max(expires_at)::text FROM old)
