-- Records executions that did not succeed: back to `ready` (retry, snooze, release, crash) or
-- finished (failed, cancelled, expired), with a row in job_attempt if one is due. Same fence as
-- ack_and_claim.sql.
-- `free` locks the rows, and every decision uses the values of the locked versions. The statement's
-- snapshot may be older: if a cancellation commits in between, the two versions together would fit
-- neither branch.
-- The statement does not wait for a locked row: the transaction of a lost runner may still be
-- committing in its backend, for any length of time.
-- If the delay is NULL, the job keeps its run_at, and with it its place. Workers have read past
-- that place, so they are notified to read from there again: `below <microseconds> <queue>`. With
-- `wake`, the other workers are notified of all jobs that can be claimed again: this worker stops
-- and will not claim them itself.
-- If a job with a group was claimed by claim_limited, it waits for its group again. It makes the
-- group ready, however it ended.
-- A job whose cancellation an operator has requested is not run again: it ends as cancelled, unless a
-- worker is to undo steps of it first. The children of cancelled durable jobs are cancelled.
-- If a durable job ends because it has expired, or because its runner was ended, its task could not undo
-- its steps: the job is put back for that (`undoes`).
-- Returns a row for each accepted execution (true), with the queue of a job that can be claimed
-- again, and its run_at in microseconds if it keeps its place; and a row for each execution to try
-- again (false). The first column is its position in the arrays, from 1. Executions that are not
-- returned were refused by the fence: the job belongs to another execution.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
WITH ended AS (
    SELECT *
    FROM unnest(
        %(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(states)s::text[], %(delays)s::double precision[],
        %(given_back)s::integer[], %(crashes)s::integer[], %(seconds)s::double precision[], %(recorded)s::text[],
        %(error_types)s::text[], %(messages)s::text[], %(tracebacks)s::text[], %(run_alone)s::boolean[], %(releases)s::integer[],
        %(logs)s::text[], %(waits)s::boolean[]
    ) WITH ORDINALITY AS ended (
        id, claims, started, new_state, delay, given_back, crashed, seconds, recorded, error_type, message, traceback, run_alone,
        released, log, waits, place)
), free AS MATERIALIZED (
    SELECT job.id, job.claims, job.worker_id, job.started_at, job.cancel_requested_at
    FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT ended.*, CASE WHEN undone.is_due THEN 'ready'
                         WHEN ended.new_state = 'ready' AND free.cancel_requested_at IS NOT NULL AND NOT
                             --include steps/has_undo job=ended.id
                             THEN 'cancelled' ELSE ended.new_state END AS final_state,
           undone.is_due AS undoes,
           -- It is put back to be undone: now, unless the undo itself waits for its next try.
           free.cancel_requested_at IS NOT NULL AND ended.delay > 0 AND NOT EXISTS (
               SELECT FROM {schema}.job_step AS undo
               WHERE undo.job_id = ended.id AND undo.kind = 'undo' AND strpos(undo.args_hash, '/') = 0 OFFSET 0) AS hurries
    FROM ended JOIN free ON free.id = ended.id
    CROSS JOIN LATERAL (
        -- If it has expired, it does not do so again: there is no need to count.
        SELECT ended.new_state = 'expired' AND
            --include steps/has_undo job=ended.id
            OR ended.new_state = 'failed' AND ended.recorded IN ('crashed', 'timeout') AND
            --include steps/undo_is_due job=ended.id
            AS is_due
    ) AS undone
    WHERE free.claims = ended.claims
      AND free.worker_id = %(worker)s
      AND free.started_at = to_timestamp(ended.started / 1e6::float8)
), finished AS (
    DELETE FROM {schema}.job AS job
    USING due
    WHERE job.id = due.id AND due.final_state <> 'ready'
    RETURNING
        --include finished_columns
        , job.attempt, least(job.crashes + due.crashed, 32767) AS crashes, job.worker_id,
        coalesce(now() - due.seconds * interval '1 second', job.started_at) AS started_at, due.final_state AS state,
        now() AS finished_at, NULL::jsonb AS result, coalesce(due.message, 'cancelled by an operator') AS error,
        due.place, due.seconds, due.recorded, due.error_type, due.message, due.traceback, due.log
)
--include finish jobs=finished
, requeued AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.limited THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        -- A `replace` may have set a later time for a job that was claimed and had not started.
        run_at = coalesce(greatest(clock_timestamp() + CASE WHEN due.hurries THEN 0 ELSE due.delay END * interval '1 second',
                                   CASE WHEN job.key_until_started THEN job.run_at END), job.run_at),
        expires_at = CASE WHEN due.undoes THEN NULL ELSE job.expires_at END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - greatest(due.given_back, due.undoes::integer), crashes = least(job.crashes + due.crashed, 32767),
        run_alone = job.run_alone OR due.run_alone, releases = least(job.releases + due.released, 32767),
        key_until_started = job.key_until_started OR (
            job.key_holds IS NOT DISTINCT FROM 'until_started' AND job.attempt = 1 AND due.given_back = 1 AND due.crashed = 0
            AND due.seconds IS NULL)
    FROM due
    WHERE job.id = due.id AND due.final_state = 'ready'
    RETURNING job.id, job.claims, job.queue, job.attempt + greatest(due.given_back, due.undoes::integer) AS attempt, job.run_at, due.place, due.seconds,
              due.recorded, due.error_type, due.message, due.traceback, due.log, job.limited, job.group_key,
              due.delay IS NULL AS keeps_place, due.waits, job.key, job.key_until_started, job.task, job.key_scope
), verdicts AS (
    SELECT requeued.id AS job_id, requeued.attempt, CASE due.new_state WHEN 'expired' THEN 'EXPIRE' ELSE 'FAIL' END AS ending,
           due.error_type, due.message
    FROM requeued JOIN due ON due.id = requeued.id AND due.undoes
), retaken AS MATERIALIZED (
    -- Its key was released for a start that did not happen: take the key again, unless another job
    -- has it by now.
    SELECT {schema}.take_key(key, id, 'until_started', task, key_scope) FROM requeued WHERE key_until_started
), attempts AS (
    INSERT INTO {schema}.job_attempt (
        job_id, claims, attempt, outcome, worker_id, started_at, retry_at, error_type, message, traceback, log)
    SELECT id, claims, attempt, recorded, %(worker)s, now() - seconds * interval '1 second', run_at, error_type,
           message, traceback, log
    FROM requeued WHERE recorded IS NOT NULL
    UNION ALL
    SELECT id, claims, attempt, recorded, %(worker)s, now() - seconds * interval '1 second', NULL, error_type, message,
           traceback, log
    FROM finished WHERE recorded IS NOT NULL
), turned AS (
    --include group_ready jobs=finished when=limited
    UNION ALL
    SELECT queue, group_key, CASE WHEN keeps_place THEN least(run_at, clock_timestamp()) ELSE clock_timestamp() END, id,
           '-infinity'::timestamptz
    FROM requeued WHERE limited AND group_key IS NOT NULL
), told AS (
    --include steps/undo_verdict jobs=verdicts
), children AS MATERIALIZED (
    SELECT {schema}.cancel_children(ARRAY(SELECT id FROM finished WHERE state = 'cancelled'))
), wakeups AS (
    -- What a durable job waits for may have happened before this: see functions/steps/try_send_signal.sql.
    INSERT INTO {schema}.job_wakeup (job_id) SELECT id FROM requeued WHERE waits RETURNING id
), lowered AS MATERIALIZED (
    SELECT queue,
           --include lowest_place
           AS run_at
    FROM requeued WHERE keeps_place GROUP BY queue
), woken AS (
    --include notify_queues
    (SELECT queue FROM requeued UNION SELECT queue FROM finished WHERE limited) AS fresh
    WHERE %(wake)s
    UNION ALL
    SELECT pg_notify(%(channel)s, 'workflow') WHERE EXISTS (SELECT FROM wakeups)
    UNION ALL
    SELECT pg_notify(%(channel)s, concat_ws(' ', 'below', run_at, queue)) FROM lowered
)
SELECT place, true AS accepted, NULL AS queue, NULL::bigint AS run_at FROM finished WHERE (SELECT count(*) FROM children) >= 0
UNION ALL
SELECT place, true, queue,
       CASE WHEN keeps_place THEN (extract(epoch FROM greatest('epoch', least(run_at, now()))) * 1000000)::bigint END
FROM requeued WHERE (SELECT count(*) FROM woken) + (SELECT count(*) FROM retaken) >= 0
UNION ALL
SELECT ended.place, false, NULL, NULL
FROM ended JOIN {schema}.job AS job ON job.id = ended.id AND job.claims = ended.claims AND job.worker_id = %(worker)s
WHERE (SELECT count(*) FROM free) < (SELECT count(DISTINCT id) FROM ended) AND NOT ended.id = ANY (ARRAY(SELECT id FROM free))
