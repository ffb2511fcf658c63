-- Which of these jobs cannot be finished now, since somebody has them locked, or their keys. Waits for nobody, and lets go at
-- once of what it locks itself.
-- Plan: job_pkey, three times; job_key_pkey; no Seq Scan on job.
WITH free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
), keyed AS MATERIALIZED (
    SELECT job.key FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) AND job.key IS NOT NULL
), free_keys AS MATERIALIZED (
    SELECT key FROM {schema}.job_key WHERE key = ANY (ARRAY(SELECT key FROM keyed)) ORDER BY key FOR UPDATE SKIP LOCKED
)
SELECT job.id FROM {schema}.job AS job
WHERE job.id = ANY (%(ids)s::bigint[])
  AND (NOT job.id = ANY (ARRAY(SELECT id FROM free))
       OR job.key IS NOT NULL
          AND NOT job.key = ANY (ARRAY(SELECT key FROM free_keys))
          AND EXISTS (SELECT FROM {schema}.job_key AS held WHERE held.key = job.key))
