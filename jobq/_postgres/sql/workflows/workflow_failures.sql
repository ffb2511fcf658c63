-- The first nodes of a run that failed: names, items, states, errors; of the items of a map, only some.
-- Plan: workflow_node_number_idx, workflow_result_failed_idx up to the limit.
SELECT node.name, result.item, result.state, result.error, result.job_id
FROM {schema}.workflow_node AS node
CROSS JOIN LATERAL (
    -- A million items may have failed.
    SELECT one.item, one.state, one.error, one.job_id, one.finished_at FROM {schema}.workflow_result AS one
    WHERE one.node_id = node.id AND one.state NOT IN ('succeeded', 'skipped') AND one.state NOT IN ('upstream_failed', 'cancelled')
    LIMIT 5
) AS result
WHERE node.workflow_id = %(id)s
ORDER BY result.finished_at LIMIT 5
