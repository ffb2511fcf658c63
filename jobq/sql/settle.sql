-- Record executions that did not succeed: back to `ready` (retry, snooze, release, crash) or finished (failed, cancelled,
-- expired), with a row in job_attempt where one is due. Same fence as advance.sql.
-- A row that someone has locked is not waited for: the transaction of a runner that is lost may still be committing in its
-- backend, for as long as it likes. Returns the ids that were accepted (true), with the queue of each that can be claimed again,
-- and those to try again (false).
-- With `wake` the others hear of the jobs that can be claimed again: this worker stops, and will not claim them itself.
-- A job with a group that was claimed by claim_managed waits for its group's turn again, which it gives it whatever its end.
-- A job whose cancellation an operator has asked for is not run again: it ends as cancelled.
-- Plan: Index Scan using job_pkey; no Seq Scan on job.
WITH ended AS (
    SELECT *
    FROM unnest(
        %(ids)s::bigint[], %(claims)s::integer[], %(states)s::text[], %(delays)s::double precision[],
        %(given_back)s::integer[], %(crashes)s::integer[], %(seconds)s::double precision[], %(recorded)s::text[],
        %(error_types)s::text[], %(messages)s::text[], %(tracebacks)s::text[]
    ) AS ended (id, claims, new_state, delay, given_back, crashed, seconds, recorded, error_type, message, traceback)
), free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    USING ended
    WHERE job.id = ended.id
      AND job.claims = ended.claims
      AND job.worker_id = %(worker)s
      AND ended.id = ANY (ARRAY(SELECT id FROM free))
      AND (ended.new_state <> 'ready' OR job.cancel_requested_at IS NOT NULL)
    RETURNING job.*, ended.seconds, ended.crashed, ended.recorded, ended.error_type, ended.message, ended.traceback,
              CASE WHEN ended.new_state = 'ready' THEN 'cancelled' ELSE ended.new_state END AS final_state
), requeued AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.managed THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        run_at = clock_timestamp() + ended.delay * interval '1 second', worker_id = NULL, started_at = NULL,
        attempt = job.attempt - ended.given_back, crashes = least(job.crashes + ended.crashed, 32767)
    FROM ended
    WHERE job.id = ended.id
      AND job.claims = ended.claims
      AND job.worker_id = %(worker)s
      AND ended.id = ANY (ARRAY(SELECT id FROM free))
      AND ended.new_state = 'ready'
      AND job.cancel_requested_at IS NULL
    RETURNING job.id, job.claims, job.queue, job.attempt + ended.given_back AS attempt, job.run_at, ended.seconds,
              ended.recorded, ended.error_type, ended.message, ended.traceback, job.managed, job.group_key
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, least(crashes + crashed, 32767), queue, task, final_state, run_at, created_at,
           coalesce(now() - seconds * interval '1 second', started_at), now(), worker_id, timeout, key, group_key,
           coalesce(message, 'cancelled by an operator'), args, headers
    FROM finished
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM finished WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM finished WHERE key IS NOT NULL))
      AND holds = 'until_finished'
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
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT queue, group_key FROM finished WHERE managed AND group_key IS NOT NULL
    UNION ALL
    SELECT queue, group_key FROM requeued WHERE managed AND group_key IS NOT NULL
), woken AS (
    SELECT pg_notify(%(channel)s, 'insert ' || queue)
    FROM (SELECT queue FROM requeued UNION SELECT queue FROM finished WHERE managed) AS fresh
    WHERE %(wake)s
)
SELECT id, true, NULL FROM finished
UNION ALL
SELECT id, true, queue FROM requeued WHERE (SELECT count(*) FROM woken) >= 0
UNION ALL
SELECT job.id, false, NULL
FROM ended JOIN {schema}.job AS job ON job.id = ended.id AND job.claims = ended.claims AND job.worker_id = %(worker)s
WHERE (SELECT count(*) FROM free) < cardinality(%(ids)s::bigint[]) AND NOT ended.id = ANY (ARRAY(SELECT id FROM free))
