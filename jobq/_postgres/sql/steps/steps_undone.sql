-- Sets the steps of a durable job aside, after they were undone: they stay for the page, and a retry of the job does not find them.
-- Under the fence of steps_write.sql. Returns whether the execution holds the job.
-- Plan: Index Scan using job_pkey, job_step_pkey.
WITH owned AS MATERIALIZED (
    SELECT job.id, job.claims FROM {schema}.job AS job
    WHERE job.id = %(id)s::bigint AND job.claims = %(claims)s::integer AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
), undone AS (
    UPDATE {schema}.job_step AS step SET args_hash = step.args_hash || '/' || owned.claims
    FROM owned WHERE step.job_id = owned.id AND strpos(step.args_hash, '/') = 0
), released AS (
    -- The key admits one child for a step: after a retry there is another one.
    UPDATE {schema}.workflow SET key = NULL
    WHERE id = ANY (ARRAY(SELECT step.child_id FROM {schema}.job_step AS step JOIN owned ON owned.id = step.job_id
                          WHERE step.child_id IS NOT NULL AND strpos(step.args_hash, '/') = 0))
)
SELECT id FROM owned
