-- Inserts a run: its nodes, its joins, and the jobs of the nodes that wait for nothing. Nodes and joins refer to each other by their
-- places in the arrays, from 0 (jobq/_app/workflow_rows.py makes them). In the caller's transaction: the run exists if and when it commits.
-- If a run of this name has the key, it inserts nothing and returns that run. node_ids: in the order of the nodes.
-- SECURITY DEFINER: a producer may enqueue, and neither read nor change workflows.
CREATE OR REPLACE FUNCTION {schema}.enqueue_workflow(
    name text, key text, on_failure text, deadline double precision, nodes jsonb, joins jsonb,
    OUT workflow_id bigint, OUT created boolean, OUT node_ids bigint[]
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    ids bigint[];
    join_ids bigint[];
    roots bigint[];
    over record;
BEGIN
    INSERT INTO {schema}.workflow (name, key, on_failure, deadline_at, nodes)
    VALUES (name, key, on_failure, clock_timestamp() + deadline * interval '1 second', jsonb_array_length(nodes))
    ON CONFLICT (name, key) WHERE key IS NOT NULL DO NOTHING
    RETURNING id INTO workflow_id;
    created := workflow_id IS NOT NULL;
    IF NOT created THEN
        SELECT run.id INTO workflow_id FROM {schema}.workflow AS run
        WHERE run.name = enqueue_workflow.name AND run.key = enqueue_workflow.key;
        node_ids := ARRAY(SELECT node.id FROM {schema}.workflow_node AS node
                          WHERE node.workflow_id = enqueue_workflow.workflow_id ORDER BY node.number);
        RETURN;
    END IF;
    -- In the order of the nodes: ids of jobs order those that are due at the same time.
    ids := ARRAY(SELECT nextval({job_id_sequence}) FROM generate_series(1, jsonb_array_length(nodes)));
    node_ids := ids;
    join_ids := ARRAY(SELECT nextval('{schema}.workflow_join_id_seq') FROM generate_series(1, jsonb_array_length(joins)));
    INSERT INTO {schema}.workflow_join (id, workflow_id, node_id, kind, parents, remaining)
    SELECT join_ids[entry.n], enqueue_workflow.workflow_id, ids[(entry.value ->> 'node')::integer + 1], entry.value ->> 'kind',
           (entry.value ->> 'parents')::integer, (entry.value ->> 'parents')::integer
    FROM jsonb_array_elements(joins) WITH ORDINALITY AS entry (value, n);
    PERFORM {schema}.workflow_insert_nodes(workflow_id, ids, join_ids, nodes, 0, NULL, NULL, NULL);
    roots := ARRAY(SELECT node.id FROM {schema}.workflow_node AS node
                   WHERE node.workflow_id = enqueue_workflow.workflow_id AND node.join_id IS NULL ORDER BY node.number);
    -- A map without items ends at once.
    FOR over IN SELECT array_agg(at_once.node_id) AS ids, array_agg(-1) AS items, array_agg(at_once.state) AS states
                FROM {schema}.workflow_start(roots, 1000000) AS at_once HAVING count(*) > 0 LOOP
        PERFORM {schema}.workflow_advance(array_agg(fed.join_id), array_agg(fed.ends), array_agg(fed.failures), array_agg(fed.skips))
        FROM {schema}.workflow_feeds(over.ids, over.items, over.states) AS fed;
    END LOOP;
    IF deadline IS NOT NULL THEN
        PERFORM {schema}.workflow_notify();
    END IF;
END
$body$;
