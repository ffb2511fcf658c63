-- What should be impossible, in the next running runs after `after_run`, at most `most`:
-- `unreleased`: a join all of whose parents have ended, and that nothing holds back, was not released;
-- `lost`: a node that has started has neither a job nor a result, and no turn says that its jobs are still to be inserted;
-- `stalled`: no job of the run is left, nothing is to be counted, nothing waits for an operator, and it has not ended.
-- One statement sees one state of the database, and each step of a run is one transaction: so none of these is on its way.
-- Returns the runs that were looked at; what was found in each, or NULL; the name of the node or the kind of the join; and the node.
-- OFFSET 0 keeps each look a look by an index: no table is read whole to be hashed.
-- Plan: workflow_state_idx or workflow_pkey; workflow_join_workflow_idx, workflow_node_number_idx, workflow_arrival_join_idx,
-- job_node_idx, workflow_turn_subject_idx and workflow_result_pkey.
WITH looked AS MATERIALIZED (
    SELECT id, on_failure, cancel_requested_at IS NOT NULL AS is_cancelled
    FROM {schema}.workflow
    WHERE state = 'running' AND id > %(after_run)s::bigint
    ORDER BY state, id LIMIT %(most)s
)
SELECT looked.id, found.what, found.name, found.node_id
FROM looked LEFT JOIN LATERAL (
    SELECT 'unreleased' AS what, parents.kind AS name, NULL::bigint AS node_id
    FROM {schema}.workflow_join AS parents
    WHERE parents.workflow_id = looked.id AND parents.remaining <= 0 AND parents.released_at IS NULL
      AND CASE parents.kind WHEN 'map' THEN parents.parents > 0
                            ELSE parents.failed <= parents.tolerated OR looked.on_failure <> 'hold' OR looked.is_cancelled END
      AND NOT EXISTS (SELECT FROM {schema}.workflow_arrival AS arrived WHERE arrived.join_id = parents.id OFFSET 0)
    UNION ALL
    SELECT 'lost', node.name, node.id
    FROM {schema}.workflow_node AS node
    LEFT JOIN LATERAL (
        SELECT released_at FROM {schema}.workflow_join WHERE workflow_join.id = node.join_id OFFSET 0
    ) AS parents ON true
    WHERE node.workflow_id = looked.id AND (node.join_id IS NULL OR parents.released_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM {schema}.workflow_result AS result WHERE result.node_id = node.id AND result.item IN (0, -1) OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.job WHERE job.node_id = node.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.workflow_turn AS turn
                      WHERE turn.subject_id = node.id AND turn.kind IN ('expand', 'stopped') OFFSET 0)
      -- A map whose items have all ended: its join is looked at above.
      AND NOT EXISTS (SELECT FROM {schema}.workflow_join AS members
                      WHERE members.id = node.members_join_id AND members.parents > 0 AND members.released_at IS NULL
                        AND (members.remaining <= 0
                             OR EXISTS (SELECT FROM {schema}.workflow_arrival AS arrived WHERE arrived.join_id = members.id OFFSET 0))
                      OFFSET 0)
    UNION ALL
    SELECT 'stalled', NULL, NULL
    WHERE NOT EXISTS (
              SELECT FROM {schema}.workflow_join AS parents
              WHERE parents.workflow_id = looked.id
                AND (parents.remaining <= 0 AND parents.released_at IS NULL AND (parents.kind <> 'map' OR parents.parents > 0)
                     OR EXISTS (SELECT FROM {schema}.workflow_arrival AS arrived WHERE arrived.join_id = parents.id OFFSET 0))
              OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.workflow_turn AS turn WHERE turn.subject_id = looked.id AND turn.kind = 'cancel' OFFSET 0)
      AND NOT EXISTS (
              SELECT FROM {schema}.workflow_node AS node
              WHERE node.workflow_id = looked.id
                AND (EXISTS (SELECT FROM {schema}.job WHERE job.node_id = node.id OFFSET 0)
                     OR EXISTS (SELECT FROM {schema}.workflow_turn AS turn
                                WHERE turn.subject_id = node.id AND turn.kind IN ('expand', 'stopped') OFFSET 0))
              OFFSET 0)
) AS found ON true
ORDER BY looked.id
