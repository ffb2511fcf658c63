-- Gives jobs that do not run another queue or priority, and wakes the workers of the queue where they can be claimed now. A due
-- job gets the present as its run_at, for workers have read its new lane up to then (worker/cursor.py).
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, queue, priority FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running'
      AND (queue <> coalesce(%(queue)s::text, queue) OR priority <> coalesce(%(priority)s::smallint, priority))
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE {schema}.job
    SET queue = coalesce(%(queue)s::text, queue), priority = coalesce(%(priority)s::smallint, priority),
        run_at = CASE WHEN state = 'ready' THEN greatest(run_at, clock_timestamp()) ELSE run_at END
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, priority, state
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue)
    FROM (SELECT DISTINCT queue FROM moved WHERE state = 'ready') AS fresh
)
SELECT moved.id, jsonb_build_object('queue', chosen.queue, 'priority', chosen.priority) AS before,
       jsonb_build_object('queue', moved.queue, 'priority', moved.priority) AS after
FROM moved JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
