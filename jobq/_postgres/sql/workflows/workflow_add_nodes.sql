-- Adds nodes to the run of the node that this execution of a job is (functions/workflows/workflow_add_nodes.sql): their ids; NULL: the
-- job is not this execution's any more.
-- Plan: one function call.
SELECT {schema}.workflow_add_nodes(
    %(job)s::bigint, %(claims)s::integer, %(worker)s::uuid, %(started)s::bigint, %(nodes)s::text::jsonb, %(joins)s::text::jsonb)
