-- One step of what the ends of nodes have left to others (functions/workflows/workflow_advance.sql): adds up to 200 joins' arrivals, and inserts up
-- to 5,000 jobs of a map, or the run that undoes a run. Returns how much it has done, in joins and in jobs; 0: there is nothing to do, or others are at it.
-- Skips what another transaction has locked, so any number of workers may call it at once.
-- A worker leaves out joins and maps (by their turns) that the database refuses, and tries only some to find them.
CREATE OR REPLACE FUNCTION {schema}.workflow_step(
    joins_left_out bigint[] DEFAULT '{}', turns_left_out bigint[] DEFAULT '{}', only_joins bigint[] DEFAULT NULL,
    only_turns bigint[] DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
DECLARE
    joins bigint[] := coalesce(only_joins, ARRAY(
        SELECT DISTINCT arrived.join_id
        FROM (SELECT join_id FROM {schema}.workflow_arrival WHERE join_id <> ALL (joins_left_out) ORDER BY id LIMIT 200) AS arrived
        ORDER BY arrived.join_id));
    zeros integer[] := array_fill(0, ARRAY[cardinality(joins)]);
    done integer := 0;
    turn record;
    map record;
    next_item integer;
    total integer;
    is_stopped boolean;
    problem text;
BEGIN
    IF cardinality(joins) > 0 THEN
        -- Those of runs that retention has removed.
        DELETE FROM {schema}.workflow_arrival AS arrived
        WHERE arrived.join_id = ANY (joins) AND NOT EXISTS (SELECT FROM {schema}.workflow_join AS one WHERE one.id = arrived.join_id);
        PERFORM {schema}.workflow_advance(joins, zeros, zeros, zeros);
        done := cardinality(joins);
    END IF;
    -- One run, if its lock is free: the maps do not wait for it.
    FOR turn IN
        SELECT * FROM {schema}.workflow_turn
        WHERE kind = 'undo' AND id <> ALL (turns_left_out) AND (only_turns IS NULL OR id = ANY (only_turns))
        ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED
    LOOP
        CONTINUE WHEN NOT pg_try_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (turn.subject_id % 64)::integer);
        BEGIN
            -- If it was retried in the meantime, nothing is done: it is undone when it ends again.
            PERFORM {schema}.workflow_undo(turn.subject_id);
        EXCEPTION
            WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
                GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
                UPDATE {schema}.workflow SET reason = concat_ws('; ', reason, 'it cannot be undone: ' || problem) WHERE id = turn.subject_id;
        END;
        DELETE FROM {schema}.workflow_turn WHERE id = turn.id;
        done := done + 1;
        EXIT;
    END LOOP;
    SELECT * INTO turn FROM {schema}.workflow_turn
    WHERE kind = 'expand' AND id <> ALL (turns_left_out) AND (only_turns IS NULL OR id = ANY (only_turns))
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN done;
    END IF;
    SELECT node.id, node.members_join_id, node.workflow_id INTO map FROM {schema}.workflow_node AS node WHERE node.id = turn.subject_id;
    IF NOT FOUND THEN
        DELETE FROM {schema}.workflow_turn WHERE id = turn.id;
        RETURN done;
    END IF;
    IF NOT pg_try_advisory_xact_lock_shared('{schema}.workflow'::regclass::oid::integer, (map.workflow_id % 64)::integer) THEN
        RETURN done;
    END IF;
    is_stopped := EXISTS (SELECT FROM {schema}.workflow WHERE id = map.workflow_id AND cancel_requested_at IS NOT NULL);
    IF NOT is_stopped THEN
        BEGIN
            next_item := {schema}.workflow_expand(map.id, turn.from_item, 5000);
        EXCEPTION
            -- As in workflow_try_start: one map that is refused must not stop the others.
            WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
                is_stopped := true;
                GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
                INSERT INTO {schema}.workflow_result (node_id, item, state, finished_at, error)
                VALUES (map.id, turn.from_item, 'failed', clock_timestamp(), 'it cannot start: ' || problem);
        END;
    END IF;
    IF is_stopped THEN
        SELECT parents - turn.from_item INTO total FROM {schema}.workflow_join WHERE id = map.members_join_id;
        PERFORM {schema}.workflow_advance(ARRAY[map.members_join_id], ARRAY[total], ARRAY[total], ARRAY[0]);
        UPDATE {schema}.workflow_turn SET kind = 'stopped' WHERE id = turn.id;
    ELSIF next_item IS NULL THEN
        DELETE FROM {schema}.workflow_turn WHERE id = turn.id;
    ELSE
        UPDATE {schema}.workflow_turn SET from_item = next_item WHERE id = turn.id;
    END IF;
    RETURN done + 5000;
END
$body$;
