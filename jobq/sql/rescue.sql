-- Take a dead worker's jobs back, if its count of beats is still what the rescuer watched stand still: all of them, or those
-- of %(only)s. One statement, which locks the dead worker's row: two rescuers cannot both. It deletes the row, unless `only`
-- names jobs: then worker_gone.sql does, when none is left. The attempt is given back and a crash counted, as a loss: whether
-- the job had anything to do with it is not known. One that has seen %(max_losses)s of its workers die is failed. A row that
-- someone has locked is not waited for, or a dead worker's transaction that hangs in its commit would hang its rescuers: it
-- is left to release_orphans.sql.
-- As in settle.sql `free` locks the rows, and every decision is made by the values of the versions that it locked; and jobs
-- keep their run_at, and with it their places, to which workers are told to go back: `below <microseconds> <queue>`.
-- Returns how many workers (1 or 0), jobs put back, jobs finished; and queues, with the run_at in microseconds from which to read
-- them again.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
WITH dead AS MATERIALIZED (
    SELECT id FROM {schema}.worker WHERE id = %(dead)s AND beats = %(beats)s FOR UPDATE
), gone AS (
    DELETE FROM {schema}.worker WHERE id = ANY (ARRAY(SELECT id FROM dead)) AND %(only)s::bigint[] IS NULL
    RETURNING id
), free AS MATERIALIZED (
    SELECT job.id, job.cancel_requested_at, job.losses,
           job.cancel_requested_at IS NOT NULL OR job.losses + 1 >= %(max_losses)s AS ends
    FROM dead CROSS JOIN {schema}.job AS job
    WHERE job.worker_id = %(dead)s AND job.state = 'running'
      AND (%(only)s::bigint[] IS NULL OR job.id = ANY (%(only)s::bigint[]))
    ORDER BY job.id
    FOR UPDATE OF job SKIP LOCKED
), finished AS (
    DELETE FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE ends))
    RETURNING job.*
), requeued AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.managed THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1, crashes = least(job.crashes + 1, 32767),
        losses = least(job.losses + 1, 32767)
    WHERE job.id = ANY (ARRAY(SELECT id FROM free WHERE NOT ends))
    RETURNING job.id, job.claims, job.attempt + 1 AS attempt, job.queue, job.run_at, job.managed, job.group_key
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, key_holds, key_scope, group_key, error, args, headers)
    SELECT id, claims, attempt, max_attempts, priority, least(crashes + 1, 32767), queue, task,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'failed' END,
           run_at, created_at, started_at, now(), worker_id, timeout, key, key_holds, key_scope, group_key,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled by an operator; its worker died'
                ELSE 'lost with its worker ' || (losses + 1) || ' times' END,
           args, headers
    FROM finished
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM finished WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM finished WHERE key IS NOT NULL))
      AND holds <> 'period'
), attempts AS (
    INSERT INTO {schema}.job_attempt (job_id, claims, attempt, outcome, worker_id, error_type, message)
    SELECT id, claims, attempt, 'crashed', %(dead)s, 'WorkerDied', 'the worker stopped giving signs of life' FROM requeued
    UNION ALL
    SELECT id, claims, attempt, 'crashed', %(dead)s, 'WorkerDied', 'the worker stopped giving signs of life' FROM finished
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, due_at)
    SELECT queue, group_key, clock_timestamp() FROM finished WHERE managed AND group_key IS NOT NULL
    UNION ALL
    SELECT queue, group_key, least(run_at, clock_timestamp()) FROM requeued WHERE managed AND group_key IS NOT NULL
), lowered AS MATERIALIZED (
    SELECT queue, (extract(epoch FROM greatest('epoch', least(min(run_at), now()))) * 1000000)::bigint AS run_at
    FROM requeued GROUP BY queue
), woken AS (
    SELECT pg_notify(%(channel)s, concat_ws(' ', 'below', run_at, queue)) FROM lowered
    UNION ALL
    SELECT pg_notify(%(channel)s, 'insert ' || queue)
    FROM (SELECT queue FROM finished WHERE managed
          -- It may have died between the end of a job and the word to others that there is room.
          UNION SELECT name FROM {schema}.queue, dead
          WHERE max_running IS NOT NULL OR rate_jobs IS NOT NULL OR group_mode IS NOT NULL) AS fresh
)
SELECT (SELECT count(*) FROM dead), (SELECT count(*) FROM requeued), (SELECT count(*) FROM finished),
       ARRAY(SELECT queue FROM lowered ORDER BY queue), ARRAY(SELECT run_at FROM lowered ORDER BY queue),
       (SELECT count(*) FROM gone) + (SELECT count(*) FROM woken)
