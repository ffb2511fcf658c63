-- Undoes a run that has ended: inserts a run of its own, whose nodes call the `undo` tasks of the nodes that succeeded, one after the
-- other, the last to end first. For a map it calls the task for each item that succeeded. The run of the undo holds if one of them fails
-- (on_failure = 'hold'): an operator retries it.
-- Returns the run of the undo. If nothing was done, `problem` says why. Both NULL: there is no such run.
-- `undo` of a node is the row of a node as workflow_insert_nodes reads it, and `parameter`, which gets the result.
-- SECURITY DEFINER: an operator changes runs by functions only.
CREATE OR REPLACE FUNCTION {schema}.workflow_undo(run_id bigint, OUT undo_run bigint, OUT problem text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    run {schema}.workflow;
    nodes jsonb;
    joins jsonb;
BEGIN
    -- A retry of the run takes it, too: of the two, the later one sees what the earlier one did.
    PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (run_id % 64)::integer);
    SELECT one.* INTO run FROM {schema}.workflow AS one WHERE one.id = run_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    ELSIF run.state = 'running' THEN
        problem := 'it has not ended: cancel it, and it is undone when its last job has ended';
        RETURN;
    ELSIF run.undo_id IS NOT NULL THEN
        problem := format('run %s undoes it, or has undone it: if that has failed, retry run %s', run.undo_id, run.undo_id);
        RETURN;
    END IF;
    WITH done AS (
        SELECT node.undo, node.kind, node.headers, ended.results, count(*) OVER () AS total,
               row_number() OVER (ORDER BY ended.at DESC, node.number DESC) AS place
        FROM {schema}.workflow_node AS node
        CROSS JOIN LATERAL (
            SELECT max(result.finished_at) AS at, jsonb_agg(result.result ORDER BY result.item) AS results
            FROM {schema}.workflow_result AS result
            WHERE result.node_id = node.id AND result.item >= 0 AND result.state = 'succeeded' OFFSET 0
        ) AS ended
        WHERE node.workflow_id = run_id AND node.undo IS NOT NULL AND ended.at IS NOT NULL
    ), placed AS (
        -- Joins: first those between the nodes and the one at the end, then those of maps.
        SELECT done.*, total - 1 + count(*) FILTER (WHERE kind = 'map') OVER (ORDER BY place) AS of_map FROM done
    )
    SELECT jsonb_agg(
               (placed.undo - 'parameter') || jsonb_build_object('kind', kind, 'headers', headers, 'feeds', jsonb_build_array(place))
               || CASE WHEN place > 1 THEN jsonb_build_object('join', place - 2) ELSE '{}' END
               || CASE kind
                  WHEN 'map' THEN jsonb_build_object('items', results, 'item_parameter', undo -> 'parameter', 'members_join', of_map)
                  ELSE jsonb_build_object('args', jsonb_build_object(undo ->> 'parameter', results -> 0)) END
               ORDER BY place),
           jsonb_agg(jsonb_build_object('kind', CASE place WHEN total THEN 'end' ELSE 'nodes' END, 'parents', 1) ORDER BY place)
           || coalesce(jsonb_agg(jsonb_build_object('kind', 'map', 'parents', 0, 'node', place - 1) ORDER BY place)
                       FILTER (WHERE kind = 'map'), '[]')
    INTO nodes, joins
    FROM placed;
    IF nodes IS NULL THEN
        problem := 'none of its nodes that have an undo has succeeded';
        RETURN;
    END IF;
    SELECT made.workflow_id INTO undo_run
    FROM {schema}.enqueue_workflow(format('%s (undo)', left(run.name, 193)), NULL, 'hold', NULL, nodes, joins) AS made;
    UPDATE {schema}.workflow
    SET undo_id = CASE id WHEN run_id THEN undo_run END, undoes_id = CASE id WHEN undo_run THEN run_id ELSE undoes_id END
    WHERE id IN (run_id, undo_run);
END
$body$;
