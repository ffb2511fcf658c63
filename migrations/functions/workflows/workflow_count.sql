-- Counts the ends of nodes' jobs at the joins that they feed; `items`: the item of a map, 0 for a task. Called by the trigger of added
-- results.
-- With planner settings of its own, like all functions of workflows that begin something: a session that ends a job has others, and statistics
-- may be of a time when the tables were empty. A sequential scan would then be planned, and would stay for the session.
CREATE OR REPLACE FUNCTION {schema}.workflow_count(ids bigint[], items integer[], states text[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
DECLARE
    failing bigint[] := ARRAY(
        SELECT DISTINCT node.id
        FROM unnest(ids, states) AS ended (id, state)
        CROSS JOIN LATERAL (SELECT id, kind FROM {schema}.workflow_node WHERE workflow_node.id = ended.id OFFSET 0) AS node
        WHERE ended.state NOT IN ('succeeded', 'skipped') AND node.kind = 'task');
BEGIN
    IF cardinality(failing) > 0 THEN
        PERFORM {schema}.workflow_failed(failing);
    END IF;
    PERFORM {schema}.workflow_advance(array_agg(join_id), array_agg(ends), array_agg(failures), array_agg(skips))
    FROM {schema}.workflow_feeds(ids, items, states);
END
$body$;
