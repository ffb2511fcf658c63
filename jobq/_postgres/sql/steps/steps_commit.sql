-- Stores steps of one durable job in the transaction of a step, under the fence of steps_write.sql. Returns the number of rows that
-- were not there, or waited: if another execution has stored one of them, it is less than the number of `names`, and the transaction
-- has to be rolled back.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
WITH owned AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job
    WHERE job.id = %(id)s::bigint AND job.claims = %(claims)s::integer AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
), written AS (
    INSERT INTO {schema}.job_step AS kept (
        job_id, kind, name, args_hash, number, place, state, started_at, finished_at, args, result, error, child_id, tries, attempt, undo)
    SELECT owned.id, given.kind, given.name, given.args_hash, given.number, given.place, given.state,
           clock_timestamp() - given.seconds * interval '1 second',
           CASE WHEN given.state IN ('done', 'failed', 'timed_out') THEN clock_timestamp() END, given.args, given.result::jsonb,
           given.error::jsonb, given.child, given.tries, %(attempt)s::integer, given.undo
    FROM owned CROSS JOIN unnest(
        %(kinds)s::text[], %(names)s::text[], %(hashes)s::text[], %(numbers)s::integer[], %(places)s::integer[], %(states)s::text[],
        %(seconds)s::double precision[], %(args)s::text[], %(results)s::text[], %(errors)s::text[], %(children)s::bigint[],
        %(tries)s::integer[], %(undos)s::text[]
    ) AS given (kind, name, args_hash, number, place, state, seconds, args, result, error, child, tries, undo)
    ON CONFLICT (job_id, kind, name, args_hash, number) DO UPDATE
    SET state = excluded.state, finished_at = excluded.finished_at, result = excluded.result, error = excluded.error,
        tries = excluded.tries, attempt = excluded.attempt
    WHERE kept.state IN ('waiting', 'retrying') AND kept.child_id IS NULL
    RETURNING job_id
), parents AS (
    UPDATE {schema}.workflow SET parent_job_id = %(id)s::bigint
    WHERE id = ANY (%(children)s::bigint[]) AND EXISTS (SELECT FROM written)
)
SELECT count(*) FROM written
