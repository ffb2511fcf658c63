-- Gives jobs that do not run another queue or priority, and wakes the workers of the queue where they can be claimed now. A due
-- job gets the present as its run_at, for workers have read its new lane up to then (worker/cursor.py). One with a group waits for
-- its group's turn where the queue has a rule for groups, and its former group has a turn, whose head it may have been.
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
    INSERT INTO {schema}.job_turn (queue, group_key, due_at)
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
