-- For retention: reads the next steps in the order of their begin, behind (%(after)s, %(after_job)s), up to those that began %(keep)s ago.
-- No job ends and leaves history sooner, so no younger step is without a job. Returns the jobs of these steps that are neither live nor
-- in history, except those `aside`; how many steps were read; and the place of the last one.
-- Live jobs are looked up first: only the others are looked for in each partition of history.
-- Plan: Index Only Scan using job_step_age_idx; job_pkey; job_history_id_idx of each partition. No Seq Scan.
WITH part AS MATERIALIZED (
    SELECT step.started_at, step.job_id FROM {schema}.job_step AS step
    WHERE (step.started_at, step.job_id) > (%(after)s::timestamptz, %(after_job)s::bigint)
      AND step.started_at < now() - %(keep)s::interval
    ORDER BY step.started_at, step.job_id LIMIT %(most)s
), ended AS MATERIALIZED (
    SELECT DISTINCT part.job_id FROM part
    WHERE part.job_id <> ALL (%(aside)s::bigint[])
      AND NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = part.job_id OFFSET 0)
)
SELECT ARRAY(SELECT job_id FROM ended EXCEPT SELECT id FROM {schema}.job_history WHERE id = ANY (ARRAY(SELECT job_id FROM ended)) ORDER BY 1),
       (SELECT count(*) FROM part),
       (SELECT started_at::text FROM part ORDER BY started_at DESC, job_id DESC LIMIT 1),
       (SELECT job_id FROM part ORDER BY started_at DESC, job_id DESC LIMIT 1)
