-- Lets a durable job begin again with other arguments: its steps are deleted, and signals that it has not taken stay. Under the fence of
-- steps_write.sql. Returns the job if the execution holds it.
-- Plan: Index Scan using job_pkey, job_step_pkey.
WITH owned AS (
    UPDATE {schema}.job AS job SET args = %(args)s::text::jsonb
    WHERE job.id = %(id)s::bigint AND job.claims = %(claims)s::integer AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
    RETURNING job.id
), forgotten AS (
    DELETE FROM {schema}.job_step AS step WHERE step.job_id = ANY (ARRAY(SELECT id FROM owned)) AND strpos(step.args_hash, '/') = 0
), released AS (
    -- The key admits one child for a step: the next one is another.
    UPDATE {schema}.workflow SET key = NULL
    WHERE id = ANY (ARRAY(SELECT step.child_id FROM {schema}.job_step AS step JOIN owned ON owned.id = step.job_id
                          WHERE step.child_id IS NOT NULL AND strpos(step.args_hash, '/') = 0))
)
SELECT id FROM owned
