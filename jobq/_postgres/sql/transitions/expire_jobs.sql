-- Finishes as expired the jobs that expired_jobs.sql has locked in this transaction, and releases
-- their keys that are held until the start or the end. Returns their number.
-- Plan: job_pkey; job_key_pkey for each job with a key; no Sort, no Seq Scan on job.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY (%(ids)s)
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, job.started_at, 'expired' AS state, clock_timestamp() AS finished_at,
        NULL::jsonb AS result, 'expired' AS error, job.state = 'waiting' AS waiting
)
--include finish jobs=finished
, turned AS (
    --include group_ready jobs=finished when=waiting
    RETURNING queue
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM turned) AS fresh
)
SELECT (SELECT count(*) FROM finished), (SELECT count(*) FROM woken)
