-- Takes a dead worker's jobs back if its heartbeat count is still the one that the rescuer saw
-- unchanged: all of them, or those of %(only)s. The statement locks the dead worker's row, so two
-- rescuers cannot both take the jobs. It deletes the row, unless `only` names jobs: then
-- worker_gone.sql deletes it when no job is left.
-- The attempt does not count, and a crash is counted as a worker death, because it is unknown
-- whether the job caused it. A job that has seen %(max_losses)s of its workers die is failed. If it is a
-- durable job with steps to undo, it is put back once more for that (`undoes`).
-- The statement does not wait for a locked row: otherwise a dead worker's transaction that hangs in
-- its commit would block its rescuers. Such a row is left to release_orphans.sql.
-- As in record_failures.sql, `free` locks the rows, and every decision uses the values of the
-- locked versions. Jobs keep their run_at, and with it their places, and workers are notified to
-- read from there: `below <microseconds> <queue>`.
-- Returns the number of workers (1 or 0), of jobs put back, and of jobs finished; and queues, with
-- the run_at in microseconds from which to read them again.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
WITH dead AS MATERIALIZED (
    SELECT id FROM {schema}.worker WHERE id = %(dead)s AND beats = %(beats)s FOR UPDATE
), gone AS (
    DELETE FROM {schema}.worker WHERE id = ANY (ARRAY(SELECT id FROM dead)) AND %(only)s::bigint[] IS NULL
    RETURNING id
), free AS MATERIALIZED (
    SELECT job.id, job.worker_deaths,
           (job.cancel_requested_at IS NOT NULL AND NOT
            --include steps/has_undo job=job.id
            ) OR (job.worker_deaths + 1 >= %(max_losses)s AND NOT
            --include steps/undo_is_due job=job.id
            ) AS ends
    FROM dead CROSS JOIN {schema}.job AS job
    WHERE job.worker_id = %(dead)s AND job.state = 'running'
      AND (%(only)s::bigint[] IS NULL OR job.id = ANY (%(only)s::bigint[]))
    ORDER BY job.id
    FOR UPDATE OF job SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE ends))
    RETURNING
        --include finished_columns
        , job.attempt, least(job.crashes + 1, 32767) AS crashes, job.worker_id, job.started_at,
        CASE WHEN job.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'failed' END AS state, now() AS finished_at,
        NULL::jsonb AS result,
        CASE WHEN job.cancel_requested_at IS NOT NULL THEN 'cancelled by an operator; its worker died'
             ELSE 'lost with its worker ' || (job.worker_deaths + 1) || ' times' END AS error
)
--include finish jobs=finished
, requeued AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.limited THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1, crashes = least(job.crashes + 1, 32767),
        worker_deaths = least(job.worker_deaths + 1, 32767)
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE NOT ends))
    RETURNING job.id, job.claims, job.attempt + 1 AS attempt, job.queue, job.run_at, job.limited, job.group_key, job.worker_deaths,
              job.cancel_requested_at
), verdicts AS (
    SELECT id AS job_id, attempt,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'CANCEL' ELSE 'FAIL' END AS ending, NULL AS error_type,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled by an operator; its worker died'
                ELSE 'lost with its worker ' || worker_deaths || ' times' END AS message
    FROM requeued WHERE worker_deaths >= %(max_losses)s
), told AS (
    --include steps/undo_verdict jobs=verdicts
), attempts AS (
    INSERT INTO {schema}.job_attempt (job_id, claims, attempt, outcome, worker_id, error_type, message)
    SELECT id, claims, attempt, 'crashed', %(dead)s, 'WorkerDied', 'the worker stopped giving signs of life' FROM requeued
    UNION ALL
    SELECT id, claims, attempt, 'crashed', %(dead)s, 'WorkerDied', 'the worker stopped giving signs of life' FROM finished
), children AS MATERIALIZED (
    SELECT {schema}.cancel_children(ARRAY(SELECT id FROM finished WHERE state = 'cancelled'))
), turned AS (
    --include group_ready jobs=finished when=limited
    UNION ALL
    SELECT queue, group_key, least(run_at, clock_timestamp()), 0, '-infinity'::timestamptz
    FROM requeued WHERE limited AND group_key IS NOT NULL
), lowered AS MATERIALIZED (
    SELECT queue,
           --include lowest_place
           AS run_at
    FROM requeued GROUP BY queue
), woken AS (
    SELECT pg_notify(%(channel)s, concat_ws(' ', 'below', run_at, queue)) FROM lowered
    UNION ALL
    --include notify_queues
    (SELECT queue FROM finished WHERE limited
     -- The worker may have died after the end of a job and before it notified others that there is
     -- room.
     UNION SELECT name FROM {schema}.queue, dead
     WHERE max_running IS NOT NULL OR rate_jobs IS NOT NULL OR group_mode IS NOT NULL) AS fresh
)
SELECT (SELECT count(*) FROM dead), (SELECT count(*) FROM requeued), (SELECT count(*) FROM finished),
       ARRAY(SELECT queue FROM lowered ORDER BY queue), ARRAY(SELECT run_at FROM lowered ORDER BY queue),
       (SELECT count(*) FROM gone) + (SELECT count(*) FROM woken) + (SELECT count(*) FROM children)
