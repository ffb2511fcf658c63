-- The ends of a map's items, in their order, from an item on.
-- Plan: workflow_result_pkey, no Sort.
SELECT result.item, result.state, result.result::text, result.error
FROM {schema}.workflow_result AS result
WHERE result.node_id = %(node)s AND result.item >= %(from_item)s
  AND (%(failures)s::boolean OR result.state = 'succeeded')
ORDER BY result.node_id, result.item LIMIT %(most)s
