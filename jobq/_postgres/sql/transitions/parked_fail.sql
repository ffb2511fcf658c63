-- Ends as failed the parked jobs that parked_overdue.sql has locked in this transaction. Returns
-- their number.
-- Plan: job_pkey; no Seq Scan on job.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY (%(ids)s)
    RETURNING
        --include finished_columns
        , job.attempt + 1 AS attempt, job.crashes, job.worker_id, job.started_at, 'failed' AS state,
        clock_timestamp() AS finished_at, NULL::jsonb AS result, job.parked_reason AS error, job.parked_at
)
--include finish jobs=finished
, attempts AS (
    INSERT INTO {schema}.job_attempt (job_id, claims, attempt, outcome, started_at, error_type, message)
    SELECT id, claims, attempt, 'failed', parked_at, 'jobq.errors.InvalidArguments', error FROM finished
)
SELECT count(*) FROM finished
