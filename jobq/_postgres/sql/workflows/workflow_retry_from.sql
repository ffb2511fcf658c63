-- Lets a node and all nodes downstream of it, or all nodes of a run, run again (functions/workflows/workflow_retry_from.sql): the
-- number of these nodes (NULL: no run that can be retried), and why they cannot.
SELECT nodes, problems FROM {schema}.workflow_retry_from(%(id)s::bigint, %(from_node)s::text)
