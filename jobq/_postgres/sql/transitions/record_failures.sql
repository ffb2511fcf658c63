-- Record executions that did not succeed: back to `ready` (retry, snooze, release, crash) or finished (failed, cancelled,
-- expired), with a row in job_attempt where one is due. Same fence as advance.sql.
-- `free` locks the rows, and every decision is made by the values of the versions that it locked. The statement's snapshot may
-- be older: a cancellation that commits in between would fit neither branch by one and the other version.
-- A row that someone has locked is not waited for: the transaction of a runner that is lost may still be committing in its
-- backend, for as long as it likes.
-- A delay of NULL: the job keeps its run_at, and with it its place. Workers have read past that place, so they are told to read
-- from there again: `below <microseconds> <queue>`. With `wake` the others hear of all jobs that can be claimed again: this
-- worker stops, and will not claim them itself.
-- A job with a group that was claimed by claim_managed waits for its group's turn again, which it gives it whatever its end.
-- A job whose cancellation an operator has asked for is not run again: it ends as cancelled.
-- Returns a row for each execution that was accepted (true), with the queue of a job that can be claimed again, and its run_at,
-- in microseconds, if it keeps its place; and one for each to try again (false). The first column is its place in the arrays, from 1. The
-- fence refuses those that are not returned: the job is another execution's.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
WITH ended AS (
    SELECT *
    FROM unnest(
        %(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(states)s::text[], %(delays)s::double precision[],
        %(given_back)s::integer[], %(crashes)s::integer[], %(seconds)s::double precision[], %(recorded)s::text[],
        %(error_types)s::text[], %(messages)s::text[], %(tracebacks)s::text[], %(run_alone)s::boolean[], %(releases)s::integer[]
    ) WITH ORDINALITY AS ended (
        id, claims, started, new_state, delay, given_back, crashed, seconds, recorded, error_type, message, traceback, run_alone,
        released, place)
), free AS MATERIALIZED (
    SELECT job.id, job.claims, job.worker_id, job.started_at, job.cancel_requested_at
    FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT ended.*, CASE WHEN ended.new_state = 'ready' AND free.cancel_requested_at IS NOT NULL THEN 'cancelled'
                         ELSE ended.new_state END AS final_state
    FROM ended JOIN free ON free.id = ended.id
    WHERE free.claims = ended.claims
      AND free.worker_id = %(worker)s
      AND free.started_at = to_timestamp(ended.started / 1e6::float8)
), finished AS (
    DELETE FROM {schema}.job AS job
    USING due
    WHERE job.id = due.id AND due.final_state <> 'ready'
    RETURNING job.*, due.place, due.seconds, due.crashed, due.recorded, due.error_type, due.message, due.traceback,
              due.final_state
), requeued AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.managed THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        -- A `replace` may have given a later time to a job that was claimed and had not started.
        run_at = coalesce(greatest(clock_timestamp() + due.delay * interval '1 second',
                                   CASE WHEN job.key_until_started THEN job.run_at END), job.run_at),
        worker_id = NULL, started_at = NULL, attempt = job.attempt - due.given_back, crashes = least(job.crashes + due.crashed, 32767),
        run_alone = job.run_alone OR due.run_alone, releases = least(job.releases + due.released, 32767),
        key_until_started = job.key_until_started OR (
            job.key_holds IS NOT DISTINCT FROM 'until_started' AND job.attempt = 1 AND due.given_back = 1 AND due.crashed = 0
            AND due.seconds IS NULL)
    FROM due
    WHERE job.id = due.id AND due.final_state = 'ready'
    RETURNING job.id, job.claims, job.queue, job.attempt + due.given_back AS attempt, job.run_at, due.place, due.seconds,
              due.recorded, due.error_type, due.message, due.traceback, job.managed, job.group_key,
              due.delay IS NULL AS keeps_place, job.key, job.key_until_started, job.task, job.key_scope
), retaken AS MATERIALIZED (
    -- Its key was released for a start that did not come: it is taken again, unless another job has it by now.
    SELECT {schema}.take_key(key, id, 'until_started', task, key_scope) FROM requeued WHERE key_until_started
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, least(crashes + crashed, 32767), queue, task, final_state, run_at, created_at,
           coalesce(now() - seconds * interval '1 second', started_at), now(), worker_id, timeout, key, key_holds, key_scope, group_key,
           coalesce(message, 'cancelled by an operator'), args, headers
    FROM finished
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM finished WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM finished WHERE key IS NOT NULL))
      AND holds <> 'period'
), attempts AS (
    INSERT INTO {schema}.job_attempt (
        job_id, claims, attempt, outcome, worker_id, started_at, retry_at, error_type, message, traceback)
    SELECT id, claims, attempt, recorded, %(worker)s, now() - seconds * interval '1 second', run_at, error_type,
           message, traceback
    FROM requeued WHERE recorded IS NOT NULL
    UNION ALL
    SELECT id, claims, attempt, recorded, %(worker)s, now() - seconds * interval '1 second', NULL, error_type, message,
           traceback
    FROM finished WHERE recorded IS NOT NULL
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, due_at, from_id, from_at)
    SELECT queue, group_key, clock_timestamp(), 9223372036854775807, 'infinity'::timestamptz
    FROM finished WHERE managed AND group_key IS NOT NULL
    UNION ALL
    SELECT queue, group_key, CASE WHEN keeps_place THEN least(run_at, clock_timestamp()) ELSE clock_timestamp() END, id,
           '-infinity'::timestamptz
    FROM requeued WHERE managed AND group_key IS NOT NULL
), lowered AS MATERIALIZED (
    SELECT queue, (extract(epoch FROM greatest('epoch', least(min(run_at), now()))) * 1000000)::bigint AS run_at
    FROM requeued WHERE keeps_place GROUP BY queue
), woken AS (
    SELECT pg_notify(%(channel)s, 'insert ' || queue)
    FROM (SELECT queue FROM requeued UNION SELECT queue FROM finished WHERE managed) AS fresh
    WHERE %(wake)s
    UNION ALL
    SELECT pg_notify(%(channel)s, concat_ws(' ', 'below', run_at, queue)) FROM lowered
)
SELECT place, true AS accepted, NULL AS queue, NULL::bigint AS run_at FROM finished
UNION ALL
SELECT place, true, queue,
       CASE WHEN keeps_place THEN (extract(epoch FROM greatest('epoch', least(run_at, now()))) * 1000000)::bigint END
FROM requeued WHERE (SELECT count(*) FROM woken) + (SELECT count(*) FROM retaken) >= 0
UNION ALL
SELECT ended.place, false, NULL, NULL
FROM ended JOIN {schema}.job AS job ON job.id = ended.id AND job.claims = ended.claims AND job.worker_id = %(worker)s
WHERE (SELECT count(*) FROM free) < (SELECT count(DISTINCT id) FROM ended) AND NOT ended.id = ANY (ARRAY(SELECT id FROM free))
