-- Stores steps of durable jobs, if the executions hold their jobs: the fence of ack_and_claim.sql. A step in a final state stays as it
-- is: after a lost connection the same steps are written again.
-- No job is locked: the only other writer of a job's steps is an earlier execution of it, whose last statement is still under way, and
-- the primary key admits one row for a step.
-- Returns the places in the arrays, from 1, that were accepted: written, or stored before with the same end. A step that is stored with
-- another end was stored by an earlier execution: this one must not go on with an end that no replay will see.
-- Plan: Index Scan using job_pkey, job_step_pkey; no Seq Scan on job or job_step.
WITH given AS (
    SELECT * FROM unnest(
        %(ids)s::bigint[], %(claims)s::integer[], %(workers)s::uuid[], %(started)s::bigint[], %(attempts)s::integer[],
        %(kinds)s::text[], %(names)s::text[], %(hashes)s::text[], %(numbers)s::integer[], %(places)s::integer[],
        %(states)s::text[], %(seconds)s::double precision[], %(args)s::text[], %(results)s::text[], %(errors)s::text[],
        %(children)s::bigint[], %(tries)s::integer[], %(wakes)s::double precision[], %(undos)s::text[]
    ) WITH ORDINALITY AS given (
        id, claims, worker, started, attempt, kind, name, args_hash, number, place, state, seconds, args, result, error, child, tries,
        wake_in, undo, n)
), owned AS MATERIALIZED (
    SELECT given.* FROM given JOIN {schema}.job AS job ON job.id = given.id
    WHERE job.claims = given.claims AND job.worker_id = given.worker AND job.started_at = to_timestamp(given.started / 1e6::float8)
), written AS (
    INSERT INTO {schema}.job_step AS kept (
        job_id, kind, name, args_hash, number, place, state, started_at, finished_at, args, result, error, child_id, tries, wake_at,
        attempt, undo)
    SELECT id, kind, name, args_hash, number, place, state, clock_timestamp() - seconds * interval '1 second',
           CASE WHEN state IN ('done', 'failed', 'timed_out') THEN clock_timestamp() END, args, result::jsonb, error::jsonb, child, tries,
           clock_timestamp() + wake_in * interval '1 second', attempt, undo
    FROM owned
    ON CONFLICT (job_id, kind, name, args_hash, number) DO UPDATE
    SET state = excluded.state, finished_at = excluded.finished_at, result = excluded.result, error = excluded.error,
        child_id = coalesce(excluded.child_id, kept.child_id), tries = excluded.tries, wake_at = excluded.wake_at,
        attempt = excluded.attempt, undo = coalesce(excluded.undo, kept.undo)
    WHERE kept.state IN ('waiting', 'retrying')
    RETURNING job_id, kind, name, args_hash, number
)
SELECT owned.n
FROM owned
WHERE CASE WHEN (SELECT count(*) FROM written) = (SELECT count(*) FROM owned) THEN true
           ELSE EXISTS (SELECT FROM written
                        WHERE written.job_id = owned.id AND written.kind = owned.kind AND written.name = owned.name
                          AND written.args_hash = owned.args_hash AND written.number = owned.number)
             OR EXISTS (SELECT FROM {schema}.job_step AS kept
                        WHERE kept.job_id = owned.id AND kept.kind = owned.kind AND kept.name = owned.name
                          AND kept.args_hash = owned.args_hash AND kept.number = owned.number AND kept.state = owned.state
                          AND kept.result IS NOT DISTINCT FROM owned.result::jsonb
                          AND kept.error IS NOT DISTINCT FROM owned.error::jsonb)
      END
