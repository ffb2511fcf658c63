-- Has failed steps run again whose failures have ended an execution, under the fence of steps_write.sql: at the job's next attempt
-- (`at_once`: they are removed), or after an operator's retry (they are marked: retry_finished.sql).
-- Plan: Index Scan using job_pkey, job_step_pkey; no Seq Scan.
WITH given AS MATERIALIZED (
    SELECT job.id, given.*
    FROM {schema}.job AS job
    CROSS JOIN unnest(%(kinds)s::text[], %(names)s::text[], %(hashes)s::text[], %(numbers)s::integer[])
        AS given (kind, name, args_hash, number)
    WHERE job.id = %(id)s::bigint AND job.claims = %(claims)s::integer AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
), marked AS (
    UPDATE {schema}.job_step AS step SET error = coalesce(step.error, '{{}}') || '{{"ended_job": true}}'
    FROM given
    WHERE NOT %(at_once)s::boolean AND step.job_id = given.id AND step.kind = given.kind AND step.name = given.name
      AND step.args_hash = given.args_hash AND step.number = given.number AND step.state = 'failed'
    RETURNING step.number
), removed AS (
    DELETE FROM {schema}.job_step AS step USING given
    WHERE %(at_once)s::boolean AND step.job_id = given.id AND step.kind = given.kind AND step.name = given.name
      AND step.args_hash = given.args_hash AND step.number = given.number AND step.state = 'failed'
    RETURNING step.number
)
SELECT (SELECT count(*) FROM marked) + (SELECT count(*) FROM removed)
