-- Adds nodes to the run of a node whose job is this execution: in the transaction of its success, or before it. Returns their ids; NULL:
-- the job is not this execution's any more. Those without parents wait for the success of the adding node. So if the execution ends
-- without it, they have not started, and the next one replaces them.
--
-- The run cannot end before them: its last join counts the adding node, or one downstream of it, until the success is written, and
-- is enlarged before that. If the run had ended (an operator has put the job back), it runs again.
-- The lock of the job keeps it from ending elsewhere, and lets requests to cancel it pass. Additions to one run follow each other, by
-- the lock of its row; a cancellation and a retry of the run wait for it, too. A transactional task calls this last, so it has the lock
-- until its commit only.
-- SECURITY DEFINER: an application may add nodes from within a job, and neither read nor change workflows.
CREATE OR REPLACE FUNCTION {schema}.workflow_add_nodes(
    job_id bigint, claims integer, worker uuid, started bigint, nodes jsonb, joins jsonb, OUT node_ids bigint[]
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
    adding bigint;
    adder {schema}.workflow_node;
    join_ids bigint[];
    first_join bigint;
    last bigint;
    former integer;
    total integer;
    sinks integer;
BEGIN
    SELECT job.node_id INTO adding FROM {schema}.job
    WHERE job.id = job_id AND job.claims = workflow_add_nodes.claims AND job.worker_id = worker
      AND job.started_at = to_timestamp(started / 1e6::float8)
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT node.* INTO adder FROM {schema}.workflow_node AS node WHERE node.id = adding;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % is no node of a workflow, so it cannot add nodes to a run', job_id;
    ELSIF adder.kind = 'map' THEN
        RAISE EXCEPTION 'job % is an item of the map %: an item cannot add nodes: let a task that takes the results add them',
            job_id, adder.name;
    END IF;
    -- To remove nodes takes the run's lock, and that comes before the run's row (workflow_take_back).
    IF EXISTS (SELECT FROM {schema}.workflow_node AS node WHERE node.added_by = adding) THEN
        PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (adder.workflow_id % 64)::integer);
    END IF;
    -- From here on, others that add nodes to this run wait: the numbers are theirs after the commit.
    PERFORM FROM {schema}.workflow AS run WHERE run.id = adder.workflow_id FOR NO KEY UPDATE;
    PERFORM {schema}.workflow_remove_added(adder.workflow_id, ARRAY[adding]);
    UPDATE {schema}.workflow AS run SET nodes = run.nodes + jsonb_array_length(workflow_add_nodes.nodes)
    WHERE run.id = adder.workflow_id RETURNING run.nodes INTO total;
    IF total > 100000 THEN
        RAISE EXCEPTION 'workflow run %: it would have % nodes with those that % adds: expected at most 100,000: use maps',
            adder.workflow_id, total, adder.name;
    END IF;
    SELECT max(node.number) INTO former FROM {schema}.workflow_node AS node WHERE node.workflow_id = adder.workflow_id;
    SELECT one.id INTO last FROM {schema}.workflow_join AS one WHERE one.workflow_id = adder.workflow_id AND one.kind = 'end';
    node_ids := ARRAY(SELECT nextval({job_id_sequence}) FROM generate_series(1, jsonb_array_length(nodes)));
    first_join := nextval('{schema}.workflow_join_id_seq');
    join_ids := ARRAY(SELECT CASE entry.value ->> 'kind' WHEN 'end' THEN last ELSE nextval('{schema}.workflow_join_id_seq') END
                      FROM jsonb_array_elements(joins) WITH ORDINALITY AS entry (value, n) ORDER BY entry.n);
    INSERT INTO {schema}.workflow_join (id, workflow_id, node_id, kind, parents, remaining)
    SELECT join_ids[entry.n], adder.workflow_id, node_ids[(entry.value ->> 'node')::integer + 1], entry.value ->> 'kind',
           (entry.value ->> 'parents')::integer, (entry.value ->> 'parents')::integer
    FROM jsonb_array_elements(joins) WITH ORDINALITY AS entry (value, n) WHERE entry.value ->> 'kind' <> 'end'
    UNION ALL
    SELECT first_join, adder.workflow_id, NULL, 'nodes', 1, 1;
    PERFORM {schema}.workflow_insert_nodes(
        adder.workflow_id, node_ids, join_ids, nodes, former, adding, first_join, adder.name || '/');
    UPDATE {schema}.workflow_node AS node SET feeds = node.feeds || first_join WHERE node.id = adding;
    SELECT (entry.value ->> 'parents')::integer INTO sinks FROM jsonb_array_elements(joins) AS entry (value)
    WHERE entry.value ->> 'kind' = 'end';
    UPDATE {schema}.workflow_join AS one
    SET parents = one.parents + sinks, remaining = one.remaining + sinks, released_at = NULL WHERE one.id = last;
    UPDATE {schema}.workflow AS run SET state = 'running', finished_at = NULL WHERE run.id = adder.workflow_id AND run.state <> 'running';
END
$body$;
