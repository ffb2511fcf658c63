-- Makes a run that has failed, was cancelled or is held ready to go on: its nodes that ended without having started wait for their
-- parents again, and maps whose expansion was stopped go on with it. Returns the ids of the jobs that did not succeed: the caller
-- retries them in the same transaction, then calls workflow_resume (jobq/operations/workflows.py). Nodes that were skipped stay so.
-- A deadline that has passed is forgotten.
-- A job that did not succeed and is gone (deleted by an operator, or by retention) is inserted again, from its node: at once, if the
-- node has no parents or is a map; else its node waits for its parents again, which have ended. `restarted`: how many there were.
-- `jobs` is NULL if there is no such run, if it has succeeded, or if it is being cancelled and its last job has not ended; and if
-- `refusal` says why it cannot go on: it was undone.
CREATE OR REPLACE FUNCTION {schema}.workflow_retry(run_id bigint, OUT jobs bigint[], OUT restarted integer, OUT refusal text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    unstarted bigint[];
    lost bigint[];
    lost_node record;
    next_item integer;
    again record;
    stopped record;
BEGIN
    PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (run_id % 64)::integer);
    refusal :=
        --include workflows/retry_refusal run=run_id
        ;
    IF refusal IS NOT NULL THEN
        RETURN;
    END IF;
    UPDATE {schema}.workflow
    SET state = 'running', finished_at = NULL, cancel_requested_at = NULL, cancel_as = NULL, reason = NULL,
        deadline_at = CASE WHEN deadline_at > clock_timestamp() THEN deadline_at END
    WHERE id = run_id AND state <> 'succeeded' AND (state <> 'running' OR cancel_requested_at IS NULL);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM {schema}.workflow_turn WHERE kind IN ('cancel', 'undo') AND subject_id = run_id;
    -- If nothing is left to run, workflow_resume ends the run again.
    UPDATE {schema}.workflow_join SET released_at = NULL WHERE workflow_id = run_id AND kind = 'end' AND released_at IS NOT NULL;
    unstarted := ARRAY(
        SELECT node.id FROM {schema}.workflow_node AS node JOIN {schema}.workflow_result AS result ON result.node_id = node.id
        LEFT JOIN {schema}.workflow_join AS members ON members.id = node.members_join_id
        WHERE node.workflow_id = run_id AND result.item IN (0, -1) AND result.job_id IS NULL
          AND result.state NOT IN ('succeeded', 'skipped') AND (members.id IS NULL OR members.parents = 0));
    jobs := ARRAY(
        SELECT result.job_id FROM {schema}.workflow_node AS node JOIN {schema}.workflow_result AS result ON result.node_id = node.id
        WHERE node.workflow_id = run_id AND result.job_id IS NOT NULL AND result.state NOT IN ('succeeded', 'skipped')
        ORDER BY result.job_id);
    lost := ARRAY(
        SELECT gone.id FROM unnest(jobs) AS gone (id)
        EXCEPT ALL (SELECT job.id FROM {schema}.job WHERE job.id = ANY (jobs)
                    UNION SELECT history.id FROM {schema}.job_history AS history WHERE history.id = ANY (jobs)));
    restarted := cardinality(lost);
    UPDATE {schema}.workflow_join SET released_at = NULL
    WHERE id IN (SELECT node.join_id FROM {schema}.workflow_node AS node
                 WHERE node.id = ANY (unstarted) OR node.id = ANY (lost) AND node.kind = 'task');
    WITH gone AS (
        DELETE FROM {schema}.workflow_result WHERE node_id = ANY (unstarted) AND item IN (0, -1) RETURNING node_id, item, state
    )
    SELECT array_agg(node_id) AS ids, array_agg(item) AS items, array_agg(state) AS states INTO again FROM gone;
    PERFORM {schema}.workflow_take_back(again.ids, again.items, again.states);
    IF restarted > 0 THEN
        jobs := ARRAY(SELECT one FROM unnest(jobs) AS one WHERE one <> ALL (lost));
        FOR lost_node IN
            WITH gone AS (
                -- The trigger takes back what they had counted.
                DELETE FROM {schema}.workflow_result AS result USING {schema}.workflow_node AS node
                WHERE node.workflow_id = run_id AND result.node_id = node.id AND result.job_id = ANY (lost)
                RETURNING node.id, node.kind, node.join_id, result.item
            )
            SELECT gone.id, gone.kind, array_agg(gone.item) AS items FROM gone
            WHERE gone.kind = 'map' OR gone.join_id IS NULL
            GROUP BY gone.id, gone.kind ORDER BY gone.id
        LOOP
            IF lost_node.kind = 'map' THEN
                -- An expansion ends early if the items share large arguments.
                next_item := 0;
                WHILE next_item IS NOT NULL LOOP
                    next_item := {schema}.workflow_expand(lost_node.id, next_item, 1000000, lost_node.items);
                END LOOP;
            ELSE
                PERFORM {schema}.workflow_start(ARRAY[lost_node.id]);
            END IF;
        END LOOP;
    END IF;
    FOR stopped IN
        UPDATE {schema}.workflow_turn AS turn SET kind = 'expand'
        FROM {schema}.workflow_node AS node JOIN {schema}.workflow_join AS members ON members.id = node.members_join_id
        WHERE node.workflow_id = run_id AND turn.subject_id = node.id AND turn.kind = 'stopped'
        RETURNING node.id, members.id AS join_id, turn.from_item, members.parents - turn.from_item AS items
    LOOP
        UPDATE {schema}.workflow_join SET released_at = NULL WHERE id = stopped.join_id;
        -- The reason why it was stopped, if it was refused.
        DELETE FROM {schema}.workflow_result WHERE node_id = stopped.id AND item >= stopped.from_item AND job_id IS NULL;
        WITH gone AS (
            DELETE FROM {schema}.workflow_result WHERE node_id = stopped.id AND item = -1 RETURNING node_id, item, state
        )
        SELECT array_agg(node_id) AS ids, array_agg(item) AS items, array_agg(state) AS states INTO again FROM gone;
        PERFORM {schema}.workflow_take_back(again.ids, again.items, again.states);
        PERFORM {schema}.workflow_advance(ARRAY[stopped.join_id], ARRAY[-stopped.items], ARRAY[-stopped.items], ARRAY[0]);
        PERFORM {schema}.workflow_notify();
    END LOOP;
END
$body$;
