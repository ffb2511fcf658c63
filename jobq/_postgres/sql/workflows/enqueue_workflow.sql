-- Inserts a workflow's run, or returns the run that holds its key. The ids of its nodes, in their order, only if they are wanted.
-- Plan: one function call.
SELECT workflow_id, created, CASE WHEN %(with_nodes)s::boolean THEN node_ids END
FROM {schema}.enqueue_workflow(
    %(name)s::text, %(key)s::text, %(on_failure)s::text, %(deadline)s::float8, %(nodes)s::text::jsonb, %(joins)s::text::jsonb)
