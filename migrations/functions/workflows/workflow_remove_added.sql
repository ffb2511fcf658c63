-- Removes the nodes that these nodes have added to their run: they run again, and add nodes again. None of the removed nodes has a job.
-- What they have counted is taken back first, so the run cannot end here.
CREATE OR REPLACE FUNCTION {schema}.workflow_remove_added(run_id bigint, adders bigint[]) RETURNS void
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    again record;
    joins bigint[];
    last bigint;
    sinks integer;
    number integer;
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.workflow_node WHERE added_by = ANY (adders)) THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.workflow_result
        WHERE node_id = ANY (ARRAY(SELECT node.id FROM {schema}.workflow_node AS node WHERE node.added_by = ANY (adders)))
        RETURNING node_id, item, state, job_id
    )
    SELECT array_agg(node_id) AS ids, array_agg(item) AS items, array_agg(state) AS states INTO again FROM gone WHERE job_id IS NULL;
    IF again.ids IS NOT NULL THEN
        PERFORM {schema}.workflow_take_back(again.ids, again.items, again.states);
    END IF;
    SELECT one.id INTO last FROM {schema}.workflow_join AS one WHERE one.workflow_id = run_id AND one.kind = 'end';
    WITH gone AS (
        DELETE FROM {schema}.workflow_node WHERE added_by = ANY (adders) RETURNING join_id, members_join_id, feeds
    )
    SELECT array_agg(gone.join_id) || array_agg(gone.members_join_id) FILTER (WHERE gone.members_join_id IS NOT NULL), count(*),
           count(*) FILTER (WHERE last = ANY (gone.feeds) OR -last = ANY (gone.feeds))
    INTO joins, number, sinks FROM gone;
    DELETE FROM {schema}.workflow_join WHERE id = ANY (joins);
    DELETE FROM {schema}.workflow_arrival WHERE join_id = ANY (joins);
    UPDATE {schema}.workflow_node AS node
    SET feeds = ARRAY(SELECT feed FROM unnest(node.feeds) WITH ORDINALITY AS one (feed, n) WHERE abs(feed) <> ALL (joins) ORDER BY n)
    WHERE node.id = ANY (adders);
    UPDATE {schema}.workflow_join SET parents = parents - sinks, remaining = remaining - sinks WHERE id = last;
    UPDATE {schema}.workflow SET nodes = nodes - number WHERE id = run_id;
END
$body$;
