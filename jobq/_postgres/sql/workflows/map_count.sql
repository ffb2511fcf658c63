-- The number of a map's items that have ended, or succeeded.
-- Plan: workflow_result_pkey.
SELECT count(*) FROM {schema}.workflow_result AS result
WHERE result.node_id = %(node)s AND result.item >= 0 AND (%(failures)s::boolean OR result.state = 'succeeded')
