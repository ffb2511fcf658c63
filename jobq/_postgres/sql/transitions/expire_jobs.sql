-- Finishes as expired the jobs that expired_jobs.sql has locked in this transaction, and releases
-- their keys that are held until the start or the end. A durable job with steps to undo does not end yet: it
-- is made due, and a worker undoes them before it ends.
-- Returns the number of both.
-- Plan: job_pkey, three times; job_step_pkey; job_key_pkey for each job with a key; no Sort, no Seq Scan on job.
WITH with_undo AS MATERIALIZED (
    SELECT late.id FROM unnest(%(ids)s::bigint[]) AS late (id) WHERE
        --include steps/has_undo job=late.id
), undone AS MATERIALIZED (
    -- If no worker's code fits the job, no worker can undo its steps.
    SELECT job.id, job.attempt, job.state, job.queue, job.group_key FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT id FROM with_undo)) AND job.state <> 'parked' AND job.parked_claims IS DISTINCT FROM job.claims
), verdicts AS (
    SELECT id AS job_id, attempt, 'EXPIRE' AS ending, NULL AS error_type, 'expired' AS message FROM undone
), told AS (
    --include steps/undo_verdict jobs=verdicts
), due AS (
    UPDATE {schema}.job SET expires_at = NULL, run_at = least(run_at, clock_timestamp())
    WHERE id = ANY (ARRAY(SELECT id FROM undone))
    RETURNING id
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY (%(ids)s) AND NOT id = ANY (ARRAY(SELECT id FROM undone))
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, job.started_at, 'expired' AS state, clock_timestamp() AS finished_at,
        NULL::jsonb AS result, 'expired' AS error, job.state = 'waiting' AS waiting
)
--include finish jobs=finished
, turned AS (
    --include group_ready jobs=finished when=waiting
    UNION ALL
    SELECT queue, group_key, clock_timestamp(), 0, '-infinity'::timestamptz FROM undone WHERE state = 'waiting'
    RETURNING queue
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT queue FROM turned UNION SELECT queue FROM undone) AS fresh
)
SELECT (SELECT count(*) FROM finished) + (SELECT count(*) FROM due), (SELECT count(*) FROM woken)
