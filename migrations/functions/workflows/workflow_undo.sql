-- Undoes a run that has ended: inserts a run of its own, whose nodes call the `undo` tasks of the nodes that succeeded, one after the
-- other, the last to end first. For a map it calls the task for each item that succeeded. The run of the undo holds if one of them fails
-- (on_failure = 'hold'): an operator retries it.
-- Returns the run of the undo. If nothing was done, `problem` says why. Both NULL: there is no such run.
-- `undo` of a node is the row of a node as workflow_insert_nodes reads it, and `parameter`, which gets the result.
-- The results are copied node by node, and those of a map in parts of 32 MB: a value of jsonb has at most 256 MB.
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
    done record;
    root bigint;
    node_id bigint;
    place integer := 0;
    -- The join for which the node waits, and the one that it feeds.
    join_id bigint;
    next_join bigint;
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
    FOR done IN
        SELECT node.id, node.kind, node.name, node.headers, node.undo, part.results, part.number
        FROM {schema}.workflow_node AS node
        CROSS JOIN LATERAL (
            SELECT max(result.finished_at) AS at FROM {schema}.workflow_result AS result
            WHERE result.node_id = node.id AND result.item >= 0 AND result.state = 'succeeded' OFFSET 0
        ) AS ended
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(sized.result ORDER BY sized.item) AS results, sized.number
            FROM (
                SELECT result.item, result.result,
                       sum(coalesce(octet_length(result.result::text), 4)) OVER (ORDER BY result.item) / 33554432 AS number
                FROM {schema}.workflow_result AS result
                WHERE result.node_id = node.id AND result.item >= 0 AND result.state = 'succeeded' OFFSET 0
            ) AS sized
            GROUP BY sized.number
        ) AS part
        WHERE node.workflow_id = run_id AND node.undo IS NOT NULL AND ended.at IS NOT NULL
        ORDER BY ended.at DESC, node.number DESC, part.number
    LOOP
        IF undo_run IS NULL THEN
            INSERT INTO {schema}.workflow (name, nodes, undoes_id) VALUES (format('%s (undo)', left(run.name, 193)), 0, run_id)
            RETURNING id INTO undo_run;
        END IF;
        place := place + 1;
        node_id := nextval({job_id_sequence});
        root := coalesce(root, node_id);
        INSERT INTO {schema}.workflow_join (workflow_id, kind, parents, remaining) VALUES (undo_run, 'nodes', 1, 1) RETURNING id INTO next_join;
        INSERT INTO {schema}.workflow_node (
            id, workflow_id, number, name, kind, join_id, feeds, args, items, item_parameter, task, queue, priority, delay, max_attempts,
            timeout, headers, group_key, expires_in)
        VALUES (
            node_id, undo_run, place, left(format('undo %s', done.name), 500), done.kind, join_id, ARRAY[next_join],
            CASE done.kind WHEN 'map' THEN '{}' ELSE jsonb_build_object(done.undo ->> 'parameter', done.results -> 0) END,
            CASE done.kind WHEN 'map' THEN done.results END, CASE done.kind WHEN 'map' THEN done.undo ->> 'parameter' END,
            done.undo ->> 'task', done.undo ->> 'queue', (done.undo ->> 'priority')::smallint, (done.undo ->> 'delay')::double precision,
            (done.undo ->> 'max_attempts')::integer, (done.undo ->> 'timeout')::double precision,
            done.headers || coalesce(done.undo -> 'headers', '{}'), done.undo ->> 'group_key', (done.undo ->> 'expires_in')::double precision);
        IF done.kind = 'map' THEN
            WITH members AS (
                INSERT INTO {schema}.workflow_join (workflow_id, node_id, kind, parents, remaining)
                VALUES (undo_run, node_id, 'map', 0, 0) RETURNING id
            )
            UPDATE {schema}.workflow_node AS node SET members_join_id = members.id FROM members WHERE node.id = node_id;
        END IF;
        join_id := next_join;
    END LOOP;
    IF undo_run IS NULL THEN
        problem := 'none of its nodes that have an undo has succeeded';
        RETURN;
    END IF;
    UPDATE {schema}.workflow_join SET kind = 'end' WHERE id = join_id;
    UPDATE {schema}.workflow SET nodes = place WHERE id = undo_run;
    UPDATE {schema}.workflow SET undo_id = undo_run WHERE id = run_id;
    -- A large map is left to workflow_step.
    PERFORM {schema}.workflow_start(ARRAY[root]);
END
$body$;
