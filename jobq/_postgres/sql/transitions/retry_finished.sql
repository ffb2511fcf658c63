-- Puts dead jobs back: same id, attempt and crashes from 0, claims kept (they are the fence), due
-- now. A job that had a key takes it again. If another job holds the key, the job stays dead, and
-- `refusal` says so. SKIP LOCKED, in the order of ids: two operators never wait for each other, and
-- of two dead jobs with the same key, the older one gets it.
-- A durable job keeps its steps and goes on where it was. Steps whose failure has ended it run again (steps_run_again.sql marked them).
-- A child that has failed is started again, and so is one that was cancelled with the job; one that an operator has retried is waited for.
-- A node of a run that is undone stays dead, too.
-- Plan: job_history_id_idx of the partitions of the three states, twice; workflow_node_pkey, workflow_result_pkey; job_step_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, state, attempt, task, key, key_holds, key_scope, node_id FROM {schema}.job_history
    WHERE id = ANY(%(ids)s) AND state IN ('failed', 'cancelled', 'expired')
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), refused AS MATERIALIZED (
    -- Nodes of runs that are undone: functions/workflows/workflow_undo.sql.
    SELECT chosen.id, refusal.why
    FROM chosen
    CROSS JOIN LATERAL (SELECT workflow_id FROM {schema}.workflow_node WHERE workflow_node.id = chosen.node_id OFFSET 0) AS node
    CROSS JOIN LATERAL (
        SELECT
            --include workflows/retry_refusal run=node.workflow_id
            AS why
    ) AS refusal
    WHERE chosen.node_id IS NOT NULL AND refusal.why IS NOT NULL
), keyed AS MATERIALIZED (
    SELECT id, state, attempt, key,
           CASE WHEN key IS NULL THEN id ELSE {schema}.take_key(key, id, coalesce(key_holds, 'until_finished'), task, key_scope) END AS holder
    FROM chosen WHERE id <> ALL (ARRAY(SELECT id FROM refused))
), gone AS (
    DELETE FROM {schema}.job_history
    WHERE id = ANY(ARRAY(SELECT id FROM keyed WHERE holder = id)) AND state IN ('failed', 'cancelled', 'expired')
    RETURNING id, claims, max_attempts, priority, queue, task, created_at, timeout, key, key_holds, key_scope, group_key, args, headers,
              node_id, node_item
), unfinished AS (
    -- A node of a workflow has not ended any more: functions/workflows/workflow_results_removed.sql.
    DELETE FROM {schema}.workflow_result AS result USING gone
    WHERE result.node_id = gone.node_id AND result.item = gone.node_item
      AND result.node_id = ANY (ARRAY(SELECT node_id FROM gone WHERE node_id IS NOT NULL))
), back AS (
    INSERT INTO {schema}.job (
        id, claims, created_at, node_id, node_item,
        --include insert_job_keyed
    )
    SELECT id, claims, created_at, node_id, node_item, task, args, queue, priority, clock_timestamp(), max_attempts, timeout, headers, group_key, NULL, key,
           CASE WHEN key IS NOT NULL THEN coalesce(key_holds, 'until_finished') END,
           coalesce(key_holds = 'until_started', false), key_scope
    FROM gone
    ORDER BY id
    RETURNING id, state, attempt
), forgotten AS (
    DELETE FROM {schema}.job_step AS step
    WHERE step.job_id = ANY(ARRAY(SELECT id FROM gone))
      AND (step.state = 'failed' AND step.error -> 'ended_job' IS NOT NULL
           OR step.state = 'waiting' AND step.child_id IS NOT NULL
              AND step.job_id IN (SELECT id FROM keyed WHERE state = 'cancelled')
              AND EXISTS (SELECT FROM {schema}.workflow AS run WHERE run.id = step.child_id AND run.state = 'cancelled'))
      AND NOT EXISTS (SELECT FROM {schema}.workflow AS run WHERE run.id = step.child_id AND run.state IN ('running', 'succeeded'))
    RETURNING step.child_id
), released AS (
    -- The key admits one child for a step (jobq/_app/step_host.py): the next child takes it.
    UPDATE {schema}.workflow SET key = NULL WHERE id = ANY(ARRAY(SELECT child_id FROM forgotten WHERE child_id IS NOT NULL))
), waited_for AS (
    UPDATE {schema}.job_step AS step SET state = 'waiting', error = NULL, finished_at = NULL
    WHERE step.job_id = ANY(ARRAY(SELECT id FROM gone)) AND step.state = 'failed' AND step.error -> 'ended_job' IS NOT NULL
      AND EXISTS (SELECT FROM {schema}.workflow AS run WHERE run.id = step.child_id AND run.state IN ('running', 'succeeded'))
)
SELECT back.id, jsonb_build_object('state', keyed.state, 'attempt', keyed.attempt) AS before,
       jsonb_build_object('state', back.state, 'attempt', back.attempt) AS after, NULL AS refusal
FROM back JOIN keyed USING (id)
UNION ALL
SELECT id, NULL, NULL,
       'key ' || quote_literal(key) || CASE WHEN holder IS NULL THEN ' is being taken by another job at this moment: try again'
                                            ELSE ' is held by job ' || holder END
FROM keyed WHERE holder IS DISTINCT FROM id
UNION ALL
SELECT id, NULL, NULL, why FROM refused
