-- Jobs claimed by a worker whose row was already gone: it was rescued from while its claim was on its way. It has noticed
-- at its next heartbeat and killed them; the minute is long past that. Or jobs whose rows were locked when their worker was
-- rescued from; those still locked are left for the next time. Read through job_running_idx: running jobs only.
-- Plan: no Seq Scan on job.
WITH released AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN job.managed THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'ready' END,
        run_at = clock_timestamp(), worker_id = NULL, started_at = NULL, attempt = job.attempt - 1
    WHERE job.state = 'running' AND job.id = ANY (ARRAY(
        SELECT lost.id FROM {schema}.job AS lost
        WHERE lost.state = 'running' AND lost.started_at < now() - interval '1 minute'
          AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = lost.worker_id)
        ORDER BY lost.id
        FOR UPDATE SKIP LOCKED))
    RETURNING job.queue, job.managed, job.group_key
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT queue, group_key FROM released WHERE managed AND group_key IS NOT NULL
), woken AS (
    SELECT pg_notify(%(channel)s, 'insert ' || queue) FROM (SELECT DISTINCT queue FROM released) AS fresh
)
SELECT (SELECT count(*) FROM released), (SELECT count(*) FROM woken)
