-- Moves jobs that are not running to another queue or priority, and notifies the workers of the
-- queue if the jobs can be claimed now. A due job gets the current time as its run_at, because
-- workers have read its new lane up to then (_worker/lanes/cursor.py). If the queue has a rule for
-- groups, a job with a group waits for its group. The job's former group becomes ready, because the
-- job may have been its head.
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, queue, priority, state, group_key FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state <> 'running'
      AND (queue <> coalesce(%(queue)s::text, queue) OR priority <> coalesce(%(priority)s::smallint, priority))
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE {schema}.job
    SET queue = coalesce(%(queue)s::text, queue), priority = coalesce(%(priority)s::smallint, priority),
        state = CASE WHEN state IN ('ready', 'waiting') THEN {schema}.entry_state(coalesce(%(queue)s::text, queue), group_key)
                     ELSE state END,
        run_at = CASE WHEN state IN ('ready', 'waiting') THEN greatest(run_at, clock_timestamp()) ELSE run_at END
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, priority, state, group_key, run_at, task, parked_at
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, run_at FROM moved WHERE state = 'waiting'
    UNION ALL
    SELECT queue, group_key, clock_timestamp() FROM chosen WHERE state = 'waiting'
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, fresh.word)
    FROM (SELECT 'insert ' || queue AS word FROM moved WHERE state IN ('ready', 'waiting')
          UNION SELECT 'insert ' || queue FROM chosen WHERE state = 'waiting'
          UNION SELECT 'parked ' || task FROM moved WHERE state = 'parked' AND parked_at IS NOT NULL) AS fresh
)
SELECT moved.id, jsonb_build_object('queue', chosen.queue, 'priority', chosen.priority) AS before,
       jsonb_build_object('queue', moved.queue, 'priority', moved.priority) AS after
FROM moved JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
