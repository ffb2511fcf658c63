-- Puts back jobs whose worker's row was already gone when they were claimed: the worker was rescued
-- while its claim was under way. It noticed that at its next heartbeat and killed the jobs; the
-- minute is long past that. Also puts back jobs whose rows were locked when their worker was
-- rescued. Jobs that are still locked are left for the next time. Applies to all jobs, or to those
-- of %(only)s.
-- As in record_failures.sql, `free` locks the rows, and every decision uses the values of the
-- locked versions: a job whose cancellation was requested ends as cancelled. The others go back to
-- their places, and workers are notified of them.
-- Reads through job_running_idx: only running jobs.
-- Returns how many were put back, and how many have ended.
-- Plan: no Seq Scan on job.
WITH free AS MATERIALIZED (
    SELECT lost.id, lost.cancel_requested_at IS NOT NULL AND NOT
           --include steps/has_undo job=lost.id
           AS ends
    FROM {schema}.job AS lost
    WHERE lost.state = 'running' AND lost.started_at < now() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = lost.worker_id)
      AND (%(only)s::bigint[] IS NULL OR lost.id = ANY (%(only)s::bigint[]))
    ORDER BY lost.id
    FOR UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE ends))
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, job.started_at, 'cancelled' AS state, now() AS finished_at,
        NULL::jsonb AS result, 'cancelled by an operator; its worker died' AS error
)
--include finish jobs=finished
, released AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.limited THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE NOT ends))
    RETURNING job.queue, job.run_at, job.limited, job.group_key
), children AS MATERIALIZED (
    SELECT {schema}.cancel_children(ARRAY(SELECT id FROM finished))
), turned AS (
    --include group_ready jobs=finished when=limited
    UNION ALL
    SELECT queue, group_key, least(run_at, clock_timestamp()), 0, '-infinity'::timestamptz
    FROM released WHERE limited AND group_key IS NOT NULL
), woken AS (
    SELECT pg_notify(
        %(channel)s,
        concat_ws(
            ' ', 'below',
            --include lowest_place
            , queue))
    FROM released GROUP BY queue
    UNION ALL
    --include notify_queues
    (SELECT DISTINCT queue FROM finished WHERE limited) AS fresh
)
SELECT (SELECT count(*) FROM released), (SELECT count(*) FROM finished), (SELECT count(*) FROM woken) + (SELECT count(*) FROM children)
