-- The result of a node of a run, by its number (from 1), and how the node ended.
-- Plan: workflow_node_number_idx, workflow_result_pkey.
SELECT result.state, result.result::text, result.error
FROM {schema}.workflow_node AS node JOIN {schema}.workflow_result AS result ON result.node_id = node.id AND result.item IN (0, -1)
WHERE node.workflow_id = %(id)s AND node.number = %(number)s
