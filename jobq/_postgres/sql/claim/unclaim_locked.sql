-- Puts back claimed jobs that cannot start because callers that hold their rows have not committed.
-- With `let_go` their keys are released: later callers then create their own jobs, so that an
-- unbroken series of callers cannot prevent this one from starting. The jobs still start only by
-- start_jobs.sql, when those callers have ended. FOR NO KEY UPDATE does not conflict with their
-- locks (FOR KEY SHARE).
-- Returns the ids that were put back.
-- Plan: Index Scan using job_pkey; no Seq Scan on job or job_key.
WITH free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job
    WHERE job.id = ANY (%(ids)s::bigint[])
    ORDER BY job.id
    FOR NO KEY UPDATE SKIP LOCKED
), back AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.limited THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        run_at = greatest(job.run_at, clock_timestamp() + %(delay)s::double precision * interval '1 second'),
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1
    FROM unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[]) AS asked (id, claims, started)
    WHERE job.id = asked.id AND job.claims = asked.claims AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(asked.started / 1e6::float8)
      AND job.id = ANY (ARRAY(SELECT id FROM free)) AND job.cancel_requested_at IS NULL
    RETURNING job.id, job.key, job.queue, job.limited, job.group_key
), released AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM back))
      AND job_id = ANY (ARRAY(SELECT id FROM back))
      AND holds = 'until_started' AND %(let_go)s
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key)
    SELECT queue, group_key FROM back WHERE limited AND group_key IS NOT NULL
)
SELECT id FROM back
