-- Locks a batch of jobs that are not running and have expired, except those `aside`. Jobs that are
-- locked are left for the next time. `since`: the end of the batch before this one, so that the
-- dead entries that it left are not walked over.
-- Returns their ids; the latest expires_at among them as text, for the next batch; and whether
-- there are jobs that will expire.
-- Plan: job_expires_idx under LockRows and Limit, in its order, and one entry of it; no Sort, no Seq Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT id, expires_at
    FROM {schema}.job
    WHERE expires_at >= %(since)s::timestamptz AND expires_at <= now() AND state <> 'running'
      AND id <> ALL (%(aside)s::bigint[])
    ORDER BY expires_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
)
SELECT ARRAY(SELECT id FROM chosen), (SELECT max(expires_at)::text FROM chosen),
       (SELECT expires_at FROM {schema}.job WHERE expires_at > now() AND state <> 'running' ORDER BY expires_at LIMIT 1) IS NOT NULL
