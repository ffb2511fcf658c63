-- Which of these jobs someone has locked. Waits for nobody, and lets go at once of what it locks itself.
-- Plan: job_pkey, twice; no Seq Scan on job.
WITH free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
)
SELECT job.id FROM {schema}.job AS job
WHERE job.id = ANY (%(ids)s::bigint[]) AND NOT job.id = ANY (ARRAY(SELECT id FROM free))
