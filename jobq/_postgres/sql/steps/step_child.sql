-- Returns how a durable job's child has ended: the state, the result and the error of its only node; of a run that retention has
-- removed, `deleted`. No row: it has not ended.
-- Plan: Index Scan using workflow_pkey, workflow_node_number_idx, workflow_result_pkey.
SELECT coalesce(result.state, 'deleted') AS state, result.result::text AS result,
       CASE WHEN result.state IS NULL THEN 'it has ended, and retention has removed its result' ELSE result.error END AS error
FROM (SELECT %(id)s::bigint AS id) AS child
LEFT JOIN {schema}.workflow AS run ON run.id = child.id
LEFT JOIN {schema}.workflow_node AS node ON node.workflow_id = run.id AND node.number = 1
LEFT JOIN {schema}.workflow_result AS result ON result.node_id = node.id AND result.item = 0
WHERE run.state IS DISTINCT FROM 'running'
