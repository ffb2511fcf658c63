-- Returns runs with id < `before`, newest first, and how many of their nodes have ended and failed: of the first `counted` nodes by
-- number. `is_blocked`: a node has failed, and nothing moves; found among the first `reach` joins and nodes. Variants: `named` by name,
-- `stated` by state, `both`, and `some` by ids.
-- Plan: workflow_pkey backwards (named: workflow_name_idx, stated: workflow_state_idx) up to the limit; then for each run
-- workflow_node_number_idx with workflow_result_pkey, workflow_join_workflow_idx, and job_node_idx up to the first live job.
SELECT run.id, run.name, run.key, run.state, run.reason, run.on_failure, run.created_at, run.finished_at, run.deadline_at,
       run.cancel_requested_at, run.parent_job_id, run.undo_id, run.undoes_id, run.nodes, seen.ended, seen.failed, clock_timestamp() AS read_at,
       CASE WHEN run.state = 'running' AND run.on_failure = 'hold' AND run.cancel_requested_at IS NULL THEN
           EXISTS (
               SELECT FROM (SELECT remaining, released_at, failed, tolerated FROM {schema}.workflow_join
                            WHERE workflow_id = run.id LIMIT %(reach)s) AS parents
               WHERE parents.remaining = 0 AND parents.released_at IS NULL AND parents.failed > parents.tolerated)
           AND NOT EXISTS (
               SELECT FROM (SELECT id FROM {schema}.workflow_node WHERE workflow_id = run.id ORDER BY number LIMIT %(reach)s) AS node
               CROSS JOIN LATERAL (SELECT FROM {schema}.job WHERE job.node_id = node.id LIMIT 1) AS live)
           AND NOT EXISTS (
               SELECT FROM {schema}.workflow_turn AS turn JOIN {schema}.workflow_node AS node ON node.id = turn.subject_id
               WHERE turn.kind = 'expand' AND node.workflow_id = run.id)
       ELSE false END AS is_blocked
FROM (
    SELECT * FROM {schema}.workflow AS run
    WHERE run.id < %(before)s::bigint
      --named AND run.name = %(name)s::text
      --stated AND run.state = %(state)s::text
      --both AND run.name = %(name)s::text AND run.state = %(state)s::text
      --some AND run.id = ANY (%(ids)s::bigint[])
    ORDER BY run.id DESC LIMIT %(limit)s
) AS run
CROSS JOIN LATERAL (
    SELECT count(result.state) AS ended,
           count(*) FILTER (WHERE result.state IN ('failed', 'expired', 'deleted')
                                  OR result.state = 'cancelled' AND run.cancel_requested_at IS NULL) AS failed
    FROM (SELECT id, kind FROM {schema}.workflow_node WHERE workflow_id = run.id ORDER BY number LIMIT %(counted)s) AS node
    LEFT JOIN LATERAL (
        SELECT state FROM {schema}.workflow_result
        WHERE workflow_result.node_id = node.id AND workflow_result.item = CASE node.kind WHEN 'map' THEN -1 ELSE 0 END
    ) AS result ON true
) AS seen
ORDER BY run.id DESC
