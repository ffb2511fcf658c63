-- Lets a node of a run, by its name or number, and all nodes downstream of it run again, whatever they ended as; `from_node` NULL: all
-- nodes of the run. Results of other nodes stay. Returns the number of nodes that run again, and why they cannot: then nothing was
-- changed. NULL: there is no such run, or it is being cancelled and its last job has not ended.
--
-- A job that runs or ends at this moment is not started a second time: the call is refused and names the node. Jobs that have not
-- started are deleted; they are inserted again when the parents of their nodes have ended.
-- The run's lock keeps releases out, as in workflow_take_back: what a node has started before is seen here, and nothing of the run
-- starts before the commit. One statement looks at the jobs, after the lock was taken: a job of these nodes that it does not see
-- has ended, and its result is seen.
--
-- Nodes that these nodes have added to the run are removed: they are added again. They are downstream of the adding node.
-- A job of a task has its node's id. So a finished job that succeeded is set aside under an id of its own and no longer belongs to the
-- run; one that did not is removed from history, as by any retry. The new job counts its claims from the number of the old one's:
-- they are the fence, and the attempts that are kept are told apart by them. Items of maps get new ids.
-- The steps of a durable task are not replayed. Those of a job that is set aside stay with it, under its new id; others are removed.
-- Its children are cancelled, and their keys are free: the new job starts its own.
-- A run that was undone starts from nothing: all of its nodes run again, after the end of the undo.
-- SECURITY DEFINER: an operator changes runs by functions only.
CREATE OR REPLACE FUNCTION {schema}.workflow_retry_from(run_id bigint, from_node text, OUT nodes integer, OUT problems text[])
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    first {schema}.workflow_node;
    undo bigint;
    refusal text;
    chosen bigint[];
    idle bigint[];
    former_jobs bigint[];
    members bigint[];
    again record;
    over record;
BEGIN
    PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (run_id % 64)::integer);
    SELECT one.undo_id INTO undo FROM {schema}.workflow AS one
    WHERE one.id = run_id AND (one.state <> 'running' OR one.cancel_requested_at IS NULL) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A run that was undone starts from nothing, and its undo must have ended. FOR SHARE: a retry of the undo waits, and is refused.
    PERFORM FROM {schema}.workflow WHERE id = undo FOR SHARE;
    refusal := CASE WHEN undo IS NOT NULL AND from_node IS NULL THEN (
        SELECT format('run %s undoes it, and has not ended: wait for its end, or cancel it', undo)
        FROM {schema}.workflow WHERE id = undo AND state = 'running')
    ELSE
        --include workflows/retry_refusal run=run_id
    END;
    IF refusal IS NOT NULL THEN
        nodes := 0;
        problems := ARRAY[refusal];
        RETURN;
    END IF;
    IF from_node IS NULL THEN
        chosen := ARRAY(SELECT node.id FROM {schema}.workflow_node AS node WHERE node.workflow_id = run_id ORDER BY node.number);
    ELSE
        SELECT node.* INTO first FROM {schema}.workflow_node AS node
        WHERE node.workflow_id = run_id AND (node.name = from_node OR node.number::text = from_node)
        ORDER BY node.name = from_node DESC, node.number LIMIT 1;
        IF NOT FOUND THEN
            nodes := 0;
            problems := ARRAY[format('node %L: the run has no node of this name or number', left(from_node, 200))];
            RETURN;
        END IF;
        -- From join to join: a thousand nodes with the same parents are found by one.
        chosen := first.id || ARRAY(
            WITH RECURSIVE fed (id) AS (
                SELECT abs(feed) FROM unnest(first.feeds) AS feed
                UNION
                SELECT abs(feed)
                FROM fed
                CROSS JOIN LATERAL (SELECT feeds FROM {schema}.workflow_node WHERE join_id = fed.id OFFSET 0) AS node
                CROSS JOIN LATERAL unnest(node.feeds) AS feed
            )
            SELECT node.id
            FROM fed CROSS JOIN LATERAL (SELECT id FROM {schema}.workflow_node WHERE join_id = fed.id OFFSET 0) AS node);
    END IF;
    WITH live AS MATERIALIZED (
        SELECT job.id, job.node_id, job.state
        FROM unnest(chosen) AS given (id)
        CROSS JOIN LATERAL (SELECT id, node_id, state FROM {schema}.job WHERE job.node_id = given.id OFFSET 0) AS job
    ), free AS MATERIALIZED (
        -- Also those that a worker has claimed since the statement began: this reads their newest rows.
        SELECT id FROM {schema}.job WHERE id = ANY (ARRAY(SELECT id FROM live)) AND state <> 'running' FOR UPDATE SKIP LOCKED
    ), ended AS MATERIALIZED (
        SELECT result.node_id, result.job_id, result.state, result.finished_at
        FROM unnest(chosen) AS given (id)
        CROSS JOIN LATERAL (
            SELECT node_id, job_id, state, finished_at FROM {schema}.workflow_result
            WHERE workflow_result.node_id = given.id AND job_id IS NOT NULL OFFSET 0
        ) AS result
    ), kept AS MATERIALIZED (
        SELECT ended.node_id, locked.is_free
        FROM ended
        CROSS JOIN LATERAL (
            SELECT id FROM {schema}.job_history AS old
            WHERE old.id = ended.job_id AND old.state = ended.state AND old.finished_at = ended.finished_at OFFSET 0
        ) AS old
        LEFT JOIN LATERAL (
            SELECT true AS is_free FROM {schema}.job_history AS old
            WHERE old.id = ended.job_id AND old.state = ended.state AND old.finished_at = ended.finished_at
            FOR UPDATE SKIP LOCKED
        ) AS locked ON true
    ), busy AS (
        SELECT live.node_id, CASE WHEN live.state = 'running' THEN format('is running: job %s', live.id)
                                  ELSE 'starts or ends at this moment' END AS why
        FROM live WHERE live.id <> ALL (ARRAY(SELECT id FROM free))
        UNION ALL
        SELECT kept.node_id, 'is being changed at this moment' FROM kept WHERE kept.is_free IS NULL
    )
    SELECT ARRAY(SELECT free.id FROM free),
           ARRAY(SELECT format('node %L %s', node.name, min(busy.why))
                 FROM busy
                 CROSS JOIN LATERAL (SELECT name, number FROM {schema}.workflow_node WHERE workflow_node.id = busy.node_id OFFSET 0) AS node
                 GROUP BY node.number, node.name ORDER BY node.number LIMIT 20)
    INTO idle, problems;
    IF problems = '{}' AND from_node IS NOT NULL
       AND first.id <> ALL (ARRAY(SELECT job.node_id FROM {schema}.job WHERE job.id = ANY (idle)))
       AND NOT EXISTS (SELECT FROM {schema}.workflow_result AS result WHERE result.node_id = first.id AND result.state <> 'upstream_failed')
       AND NOT EXISTS (SELECT FROM {schema}.workflow_turn AS turn WHERE turn.subject_id = first.id) THEN
        problems := ARRAY[format('node %L has not started: retry from a node that it waits for', first.name)];
    END IF;
    nodes := CASE WHEN problems = '{}' THEN cardinality(chosen) ELSE 0 END;
    IF problems <> '{}' THEN
        RETURN;
    END IF;
    UPDATE {schema}.workflow
    SET state = 'running', finished_at = NULL, cancel_requested_at = NULL, cancel_as = NULL, reason = NULL, undo_id = NULL,
        deadline_at = CASE WHEN deadline_at > clock_timestamp() THEN deadline_at END
    WHERE id = run_id;
    DELETE FROM {schema}.workflow_turn
    WHERE kind IN ('cancel', 'undo') AND subject_id = run_id OR kind IN ('expand', 'stopped') AND subject_id = ANY (chosen);
    WITH gone AS (
        DELETE FROM {schema}.job WHERE id = ANY (idle)
        RETURNING id, claims, queue, group_key, state = 'waiting' AS waiting
    ), turned AS (
        --include group_ready jobs=gone when=waiting
        RETURNING queue
    ), counted AS (
        UPDATE {schema}.workflow_node AS node SET claims = gone.claims FROM gone
        WHERE node.id = gone.id AND gone.claims > 0 AND node.id = ANY (ARRAY(SELECT id FROM gone))
    )
    SELECT array_agg(DISTINCT queue) AS queues INTO over FROM turned;
    PERFORM pg_notify({schema_literal}, 'insert ' || queue) FROM unnest(over.queues) AS queue;
    members := ARRAY(SELECT node.members_join_id FROM {schema}.workflow_node AS node
                     WHERE node.id = ANY (chosen) AND node.members_join_id IS NOT NULL);
    UPDATE {schema}.workflow_join AS one SET released_at = NULL
    WHERE one.workflow_id = run_id AND one.released_at IS NOT NULL
      AND (one.kind = 'end' OR one.id = ANY (members)
           OR one.id = ANY (ARRAY(SELECT node.join_id FROM {schema}.workflow_node AS node WHERE node.id = ANY (chosen))));
    -- The jobs' results are still there: they lead to history.
    WITH ended AS MATERIALIZED (
        SELECT result.node_id, result.item, result.job_id, result.state, result.finished_at, node.kind, node.name
        FROM unnest(chosen) AS given (id)
        CROSS JOIN LATERAL (SELECT id, kind, name FROM {schema}.workflow_node WHERE workflow_node.id = given.id OFFSET 0) AS node
        CROSS JOIN LATERAL (
            SELECT * FROM {schema}.workflow_result WHERE workflow_result.node_id = given.id AND job_id IS NOT NULL OFFSET 0
        ) AS result
    ), aside AS (
        UPDATE {schema}.job_history AS old
        SET id = CASE ended.kind WHEN 'task' THEN nextval({job_id_sequence}) ELSE old.id END, node_id = NULL, node_item = NULL,
            headers = old.headers || jsonb_build_object('jobq.set_aside', format('run %s, node %s', run_id, ended.name))
        FROM ended
        WHERE ended.state = 'succeeded' AND old.state = 'succeeded' AND old.id = ended.job_id AND old.finished_at = ended.finished_at
        RETURNING ended.node_id, ended.kind, old.claims, old.id
    ), with_steps AS (
        UPDATE {schema}.job_step AS step SET job_id = aside.id FROM aside
        WHERE aside.kind = 'task' AND step.job_id = aside.node_id
    ), gone AS (
        DELETE FROM {schema}.job_history AS old USING ended
        WHERE ended.state <> 'succeeded' AND old.state = ended.state AND old.id = ended.job_id AND old.finished_at = ended.finished_at
        RETURNING ended.node_id, ended.kind, old.claims, old.id
    ), counted AS (
        UPDATE {schema}.workflow_node AS node SET claims = former.claims
        FROM (SELECT * FROM aside UNION ALL SELECT * FROM gone) AS former
        WHERE node.id = former.node_id AND former.kind = 'task'
    )
    SELECT idle || chosen || ARRAY(SELECT gone.id FROM gone) INTO former_jobs;
    PERFORM {schema}.cancel_children(former_jobs);
    UPDATE {schema}.workflow AS run SET key = NULL
    WHERE run.parent_job_id IS NOT NULL AND run.parent_job_id = ANY (former_jobs) AND run.key IS NOT NULL;
    DELETE FROM {schema}.job_step AS step WHERE step.job_id = ANY (former_jobs);
    -- The trigger of removed results takes back what jobs have counted.
    WITH gone AS (
        DELETE FROM {schema}.workflow_result WHERE node_id = ANY (chosen) RETURNING node_id, item, state, job_id
    )
    SELECT array_agg(node_id) AS ids, array_agg(item) AS items, array_agg(state) AS states INTO again
    FROM gone WHERE job_id IS NULL AND item IN (0, -1);
    IF again.ids IS NOT NULL THEN
        PERFORM {schema}.workflow_take_back(again.ids, again.items, again.states);
    END IF;
    PERFORM {schema}.workflow_remove_added(run_id, chosen);
    -- As they were made: a map's items are those that its parents return this time. The row's lock comes before its arrivals.
    UPDATE {schema}.workflow_join
    SET released_at = NULL, parents = 0, remaining = 0, failed = 0, skipped = 0, tolerated = 0 WHERE id = ANY (members);
    DELETE FROM {schema}.workflow_arrival WHERE join_id = ANY (members);
    UPDATE {schema}.workflow_node AS node
    SET items = given -> 'items', args = given -> 'args', inputs = nullif(given -> 'inputs', 'null'), given = NULL
    WHERE id = ANY (chosen) AND given IS NOT NULL;
    FOR over IN
        SELECT array_agg(at_once.node_id) AS ids, array_agg(CASE node.kind WHEN 'map' THEN -1 ELSE 0 END) AS items,
               array_agg(at_once.state) AS states,
               array_agg(at_once.node_id) FILTER (WHERE at_once.state = 'failed') AS failing
        FROM {schema}.workflow_try_start(ARRAY(
            SELECT node.id FROM {schema}.workflow_node AS node WHERE node.id = ANY (chosen) AND node.join_id IS NULL ORDER BY node.number
        )) AS at_once
        CROSS JOIN LATERAL (SELECT kind FROM {schema}.workflow_node WHERE workflow_node.id = at_once.node_id OFFSET 0) AS node
        HAVING count(*) > 0
    LOOP
        IF over.failing IS NOT NULL THEN
            PERFORM {schema}.workflow_failed(over.failing);
        END IF;
        PERFORM {schema}.workflow_advance(array_agg(fed.join_id), array_agg(fed.ends), array_agg(fed.failures), array_agg(fed.skips))
        FROM {schema}.workflow_feeds(over.ids, over.items, over.states) AS fed;
    END LOOP;
    PERFORM {schema}.workflow_resume(run_id);
END
$body$;
