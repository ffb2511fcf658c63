-- Jobs claimed by a worker whose row was already gone: it was rescued from while its claim was on its way. It has noticed
-- at its next heartbeat and killed them; the minute is long past that. Or jobs whose rows were locked when their worker was
-- rescued from; those still locked are left for the next time. All of them, or those of %(only)s.
-- As in settle.sql `free` locks the rows, and every decision is made by the values of the versions that it locked: one whose
-- cancellation was asked for ends as cancelled, the others go back to their places, of which workers are told.
-- Read through job_running_idx: running jobs only.
-- Returns how many were put back, and how many have ended.
-- Plan: no Seq Scan on job.
WITH free AS MATERIALIZED (
    SELECT lost.id, lost.cancel_requested_at FROM {schema}.job AS lost
    WHERE lost.state = 'running' AND lost.started_at < now() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = lost.worker_id)
      AND (%(only)s::bigint[] IS NULL OR lost.id = ANY (%(only)s::bigint[]))
    ORDER BY lost.id
    FOR UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE cancel_requested_at IS NOT NULL))
    RETURNING job.*
), released AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.managed THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE cancel_requested_at IS NULL))
    RETURNING job.queue, job.run_at, job.managed, job.group_key
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'cancelled', run_at, created_at, started_at,
           now(), worker_id, timeout, key, key_holds, key_scope, group_key, 'cancelled by an operator; its worker died', args, headers
    FROM finished
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM finished WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM finished WHERE key IS NOT NULL))
      AND holds <> 'period'
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, due_at)
    SELECT queue, group_key, clock_timestamp() FROM finished WHERE managed AND group_key IS NOT NULL
    UNION ALL
    SELECT queue, group_key, least(run_at, clock_timestamp()) FROM released WHERE managed AND group_key IS NOT NULL
), woken AS (
    SELECT pg_notify(%(channel)s, concat_ws(
               ' ', 'below', (extract(epoch FROM greatest('epoch', least(min(run_at), now()))) * 1000000)::bigint, queue))
    FROM released GROUP BY queue
    UNION ALL
    SELECT pg_notify(%(channel)s, 'insert ' || queue)
    FROM (SELECT DISTINCT queue FROM finished WHERE managed) AS fresh
)
SELECT (SELECT count(*) FROM released), (SELECT count(*) FROM finished), (SELECT count(*) FROM woken)
