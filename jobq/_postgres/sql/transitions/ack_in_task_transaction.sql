-- Records one success inside the transaction of its task, under the fence of ack_and_claim.sql and
-- with the same effects as that statement, for one job. A second fence: `jobq.execution` was set
-- only for the transaction that was begun for this execution. If a task has ended that transaction,
-- nothing succeeds.
-- The times are the statement's, because now() is when the transaction began. It runs with the
-- application's planner settings.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
-- If a result cannot be stored, it is NULL, and `error` says why.
-- Returns 1 or 0, and the execution that this transaction belongs to.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = %(id)s::bigint
      AND job.claims = %(claims)s::integer
      AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
      AND current_setting('jobq.execution', true) = %(execution)s::text
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id,
        statement_timestamp() - %(seconds)s::double precision * interval '1 second' AS started_at,
        'succeeded' AS state, statement_timestamp() AS finished_at, %(result)s::text::jsonb AS result, %(error)s::text AS error
)
--include finish jobs=finished
, turned AS (
    --include group_ready jobs=finished when=limited
)
SELECT (SELECT count(*) FROM finished), current_setting('jobq.execution', true)
