-- Record one success inside the transaction of its task: what `finished`, `kept`, `freed` and `turned` of advance.sql do, for one job,
-- under the same fence. And under another: `jobq.execution` was set for the transaction that was begun for this execution
-- and for nothing longer, so a task that has ended that transaction succeeds nothing.
-- The times are the statement's, for now() is when the transaction began. On the application's planner settings.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
-- A result that cannot be stored is NULL, and `error` says why.
-- Returns 1 or 0, and the execution that this transaction belongs to.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = %(id)s::bigint
      AND job.claims = %(claims)s::integer
      AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
      AND current_setting('jobq.execution', true) = %(execution)s::text
    RETURNING job.*
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, key_holds, key_scope, group_key, args, headers, result, error)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'succeeded', run_at, created_at,
           statement_timestamp() - %(seconds)s::double precision * interval '1 second', statement_timestamp(), worker_id,
           timeout, key, key_holds, key_scope, group_key, args, headers, %(result)s::text::jsonb, %(error)s::text
    FROM finished
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = (SELECT key FROM finished)
      AND job_id = (SELECT id FROM finished)
      AND holds = 'until_finished'
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, from_id, from_at)
    SELECT queue, group_key, 9223372036854775807, 'infinity'::timestamptz FROM finished WHERE managed AND group_key IS NOT NULL
)
SELECT (SELECT count(*) FROM finished), current_setting('jobq.execution', true)
