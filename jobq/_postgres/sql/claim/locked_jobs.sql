-- Returns the jobs that cannot be finished now, because another transaction has locked them or
-- their keys. Waits for no lock, and releases its own locks at once.
-- Plan: job_pkey, twice; job_key_pkey; no Seq Scan on job.
WITH free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT job.id, job.key FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[])
), free_keys AS MATERIALIZED (
    SELECT job_id FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM wanted WHERE key IS NOT NULL)) AND job_id = ANY (%(ids)s::bigint[])
    ORDER BY key, scope
    FOR UPDATE SKIP LOCKED
)
SELECT id FROM wanted
WHERE NOT id = ANY (ARRAY(SELECT id FROM free))
   OR key IS NOT NULL
      AND NOT id = ANY (ARRAY(SELECT job_id FROM free_keys))
      AND EXISTS (SELECT FROM {schema}.job_key AS held WHERE held.key = wanted.key AND held.job_id = wanted.id)
