-- Makes jobs due that other workers' code has refused, of tasks that this worker has with another
-- signature, in queues with a limit, a rate or a rule for groups: such jobs wait there for a while
-- (park.sql), or were parked before the rule was set. Notifies the workers of their queues. Jobs
-- that have run since they were refused keep the time of their retry.
-- The variant `parked_due:one` makes only one job due (parked.py).
-- Plan: job_parked_idx for each task under LockRows and Limit; queue_pkey; job_pkey; no Seq Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT refused.id
    FROM unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
    CROSS JOIN LATERAL (
        SELECT job.id
        FROM {schema}.job AS job
        WHERE
            --include parked_in_line
            --one AND job.id = %(only)s
        ORDER BY job.priority DESC, job.run_at, job.id
        LIMIT 500
        FOR NO KEY UPDATE OF job SKIP LOCKED
    ) AS refused
    LIMIT 500
), due AS (
    UPDATE {schema}.job AS job
    SET state = {schema}.entry_state(job.queue, job.group_key),
        run_at = CASE WHEN job.state = 'parked' THEN job.run_at ELSE least(job.run_at, clock_timestamp()) END
    WHERE job.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING job.queue, job.group_key, job.state, job.run_at
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, greatest(run_at, clock_timestamp()) FROM due WHERE state = 'waiting'
), woken AS (
    -- They keep their old times, and workers have read past those.
    SELECT pg_notify(
        %(channel)s,
        concat_ws(
            ' ', 'below',
            --include lowest_place
            , queue))
    FROM due GROUP BY queue
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM woken)
