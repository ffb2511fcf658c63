-- Starts nodes, whose parents have ended: inserts the job of each task, and the jobs of each map's items. Returns those that ended
-- at once, with their states: a map without items, or over something that is no list.
-- A map with more than `at_once` items is left to workflow_expand: it must not hold up the acknowledgement that started it.
CREATE OR REPLACE FUNCTION {schema}.workflow_start(ids bigint[], at_once integer DEFAULT 1000)
RETURNS TABLE (node_id bigint, state text)
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    map record;
    problem text;
    total integer;
    next_item integer;
BEGIN
    INSERT INTO {schema}.job (
        id, claims, node_id, node_item,
        --include insert_job
    )
    SELECT node.id, node.claims, node.id, 0, node.task,
           CASE WHEN node.inputs IS NULL THEN node.args ELSE {schema}.workflow_args(node.args, node.inputs) END,
           node.queue, node.priority, clock_timestamp() + coalesce(node.delay, 0) * interval '1 second', node.max_attempts,
           node.timeout, node.headers, node.group_key, clock_timestamp() + node.expires_in * interval '1 second'
    FROM {schema}.workflow_node AS node
    WHERE node.id = ANY (ids) AND node.kind = 'task'
    ORDER BY node.id;
    FOR map IN
        SELECT node.id, node.name, node.members_join_id, node.min_success,
               CASE WHEN jsonb_typeof(node.items) = 'array' THEN node.items ELSE {schema}.workflow_value(node.items) END AS items
        FROM {schema}.workflow_node AS node
        WHERE node.id = ANY (ids) AND node.kind = 'map'
        ORDER BY node.id
    LOOP
        total := CASE WHEN jsonb_typeof(map.items) = 'array' THEN jsonb_array_length(map.items) END;
        problem := CASE WHEN total IS NULL
                            THEN format('map %s: expected a list of items, got %s', map.name, coalesce(jsonb_typeof(map.items), 'nothing'))
                        WHEN total > 1000000
                            THEN format('map %s: expected at most 1,000,000 items, got %s: map over parts of the list', map.name, total) END;
        IF problem IS NOT NULL OR total = 0 THEN
            UPDATE {schema}.workflow_join SET released_at = clock_timestamp(), parents = 0, remaining = 0 WHERE id = map.members_join_id;
            INSERT INTO {schema}.workflow_result (node_id, item, state, started_at, finished_at, error)
            VALUES (map.id, -1, CASE WHEN problem IS NULL THEN 'succeeded' ELSE 'failed' END, clock_timestamp(), clock_timestamp(), problem)
            RETURNING workflow_result.node_id, workflow_result.state INTO node_id, state;
            RETURN NEXT;
            CONTINUE;
        END IF;
        UPDATE {schema}.workflow_join
        SET released_at = NULL, failed = 0, parents = total, remaining = total, tolerated = total - ceil(total * coalesce(map.min_success, 1) - 1e-6)
        WHERE id = map.members_join_id;
        next_item := 0;
        IF total <= at_once THEN
            next_item := {schema}.workflow_expand(map.id, 0, total);
        END IF;
        IF next_item IS NOT NULL THEN
            -- What it refers to is read now: a retry of a node that it does not need may remove that before the last item.
            UPDATE {schema}.workflow_node AS node
            SET items = map.items, inputs = NULL,
                given = coalesce(node.given, jsonb_build_object('items', node.items, 'args', node.args, 'inputs', node.inputs)),
                args = CASE WHEN node.inputs IS NULL THEN node.args ELSE {schema}.workflow_args(node.args, node.inputs) END
            WHERE node.id = map.id AND (node.inputs IS NOT NULL OR jsonb_typeof(node.items) <> 'array');
            INSERT INTO {schema}.workflow_turn (kind, subject_id, from_item) VALUES ('expand', map.id, next_item);
            PERFORM {schema}.workflow_notify();
        END IF;
    END LOOP;
END
$body$;
