-- Starts nodes like workflow_start. A node whose jobs the database refuses (arguments that are too large, a constraint or a trigger of
-- yours on jobs) ends as failed, and the others start: the end that has started them must be written, and so must the ends of
-- other runs. Errors of other kinds (locks, timeouts, lack of memory) are raised: the same may succeed later.
CREATE OR REPLACE FUNCTION {schema}.workflow_try_start(ids bigint[]) RETURNS TABLE (node_id bigint, state text)
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    problem text;
BEGIN
    RETURN QUERY SELECT * FROM {schema}.workflow_start(ids);
EXCEPTION
    WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
        IF cardinality(ids) > 1 THEN
            RETURN QUERY SELECT one.* FROM unnest(ids) AS each (id) CROSS JOIN LATERAL {schema}.workflow_try_start(ARRAY[each.id]) AS one;
        ELSE
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            INSERT INTO {schema}.workflow_result (node_id, item, state, finished_at, error)
            SELECT node.id, CASE node.kind WHEN 'map' THEN -1 ELSE 0 END, 'failed', clock_timestamp(), 'it cannot start: ' || problem
            FROM {schema}.workflow_node AS node WHERE node.id = ids[1]
            RETURNING workflow_result.node_id, workflow_result.state INTO node_id, state;
            RETURN NEXT;
        END IF;
END
$body$;
