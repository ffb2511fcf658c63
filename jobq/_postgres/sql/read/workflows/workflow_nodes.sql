-- Returns the first nodes of a run in their order, each with its end, its job or its items, and the join of its parents.
-- Plan: workflow_node_number_idx up to the limit, no Sort; workflow_result_pkey, job_node_idx and workflow_join_pkey for each node.
SELECT node.id, node.number, node.name, node.kind, node.task, node.queue, node.join_id, node.feeds, node.min_success,
       node.condition::text AS condition,
       coalesce(result.state,
                CASE WHEN node.kind = 'map' AND members.parents > 0 THEN 'running'
                     WHEN job.state = 'ready' AND job.run_at > clock_timestamp() THEN 'scheduled'
                     ELSE job.state END,
                'waiting') AS state,
       coalesce(result.job_id, job.id) AS job_id,
       CASE WHEN node.kind <> 'map' THEN NULL
            WHEN members.parents > 0 OR result.state = 'succeeded' THEN members.parents
            -- A long list would have to be read whole.
            WHEN pg_column_size(node.items) < 100000 AND jsonb_typeof(node.items) = 'array' THEN jsonb_array_length(node.items) END AS items,
       members.parents - members.remaining AS items_ended, members.failed AS items_failed,
       CASE WHEN node.kind = 'map' AND result.state IS NULL AND members.parents > 0 THEN
           (SELECT turn.from_item FROM {schema}.workflow_turn AS turn
            WHERE turn.subject_id = node.id AND turn.kind = 'expand' LIMIT 1) END AS items_inserted,
       CASE WHEN node.join_id IS NULL THEN run.created_at ELSE parents.released_at END AS released_at,
       coalesce(result.started_at, job.started_at,
                CASE WHEN node.kind = 'map' AND members.parents > 0 THEN coalesce(parents.released_at, run.created_at) END) AS started_at,
       result.finished_at, left(result.error, 2000) AS error, job.run_at, job.created_at AS queued_at,
       coalesce(parents.remaining, 0) AS parents_remaining, coalesce(parents.failed > parents.tolerated, false) AS parents_failed,
       node.undo ->> 'task' AS undo, clock_timestamp() AS now
FROM {schema}.workflow AS run
JOIN {schema}.workflow_node AS node ON node.workflow_id = run.id
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.workflow_result
    WHERE workflow_result.node_id = node.id AND workflow_result.item = CASE node.kind WHEN 'map' THEN -1 ELSE 0 END
) AS result ON true
LEFT JOIN LATERAL (
    SELECT live.id, live.state, live.run_at, live.created_at, live.started_at FROM {schema}.job AS live
    WHERE live.node_id = node.id AND node.kind <> 'map' AND result.state IS NULL LIMIT 1
) AS job ON true
LEFT JOIN {schema}.workflow_join AS parents ON parents.id = node.join_id
LEFT JOIN {schema}.workflow_join AS members ON members.id = node.members_join_id
WHERE run.id = %(id)s::bigint
ORDER BY node.number LIMIT %(limit)s
