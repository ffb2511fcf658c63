-- Takes back what the results of these nodes or items, which were removed, had counted: they run again. A join that was released in the
-- meantime stays so, but for two: that of a map whose node has failed by it, and the last one of a run that has ended. These are open
-- again.
-- It waits for the releases of these runs that are under way, and lets none begin until its commit: a release either sees that the
-- parent has not ended, or it is over, and its nodes have read what the parent had returned.
CREATE OR REPLACE FUNCTION {schema}.workflow_take_back(ids bigint[], items integer[], states text[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    runs bigint[] := ARRAY(
        SELECT DISTINCT run.id
        FROM unnest(ids) AS given (id)
        CROSS JOIN LATERAL (SELECT workflow_id FROM {schema}.workflow_node WHERE workflow_node.id = given.id OFFSET 0) AS node
        JOIN {schema}.workflow AS run ON run.id = node.workflow_id);
    key integer;
    refusal text;
BEGIN
    -- All of them, in one order: two bulk retries do not wait for each other in a circle.
    FOR key IN SELECT DISTINCT (one % 64)::integer FROM unnest(runs) AS one ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, key);
    END LOOP;
    -- A retry of single jobs looks before it takes the lock (retry_finished.sql): the undo of the run may have come in between.
    SELECT refused.why INTO refusal
    FROM unnest(runs) AS given (id)
    CROSS JOIN LATERAL (
        SELECT
            --include workflows/retry_refusal run=given.id
            AS why
    ) AS refused
    WHERE refused.why IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%', refusal USING ERRCODE = 'serialization_failure';
    END IF;
    -- Not if retention has removed the runs.
    WHILE cardinality(ids) > 0 AND cardinality(runs) > 0 LOOP
        UPDATE {schema}.workflow_join AS again SET released_at = NULL
        WHERE again.id = ANY (ARRAY(SELECT fed.join_id FROM {schema}.workflow_feeds(ids, items, states) AS fed))
          AND again.released_at IS NOT NULL
          AND (again.kind = 'end'
               OR again.kind = 'map' AND EXISTS (SELECT FROM {schema}.workflow_result AS result
                                                 WHERE result.node_id = again.node_id AND result.item = -1
                                                   AND result.state <> 'succeeded'));
        UPDATE {schema}.workflow AS run SET state = 'running', finished_at = NULL
        WHERE run.id = ANY (runs) AND run.state <> 'running'
          AND EXISTS (SELECT FROM {schema}.workflow_join AS last
                      WHERE last.workflow_id = run.id AND last.kind = 'end' AND last.released_at IS NULL);
        PERFORM {schema}.workflow_advance(array_agg(join_id), array_agg(-ends), array_agg(-failures), array_agg(-skips))
        FROM {schema}.workflow_feeds(ids, items, states);
        WITH reopened AS (
            DELETE FROM {schema}.workflow_result AS result
            USING {schema}.workflow_node AS node, {schema}.workflow_join AS members
            WHERE node.id = ANY (ids) AND node.kind = 'map' AND members.id = node.members_join_id AND members.released_at IS NULL
              AND result.node_id = node.id AND result.item = -1
            RETURNING result.node_id, result.item, result.state
        )
        SELECT array_agg(node_id), array_agg(item), array_agg(state) INTO ids, items, states FROM reopened;
    END LOOP;
END
$body$;
