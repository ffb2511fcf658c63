-- Removes ended runs, for retention: at most `most` results, and at most `most` nodes, at each call. Returns the number of removed rows;
-- a run is gone when there are none any more. Runs that are running are left alone.
--
-- The run's own row goes first, then its joins: from then on the triggers of removed results find nothing to count. A row of
-- workflow_turn remembers the run until all its nodes are gone, because nothing else leads to them.
-- It does not wait: what another transaction has locked (a retry of one of the run's jobs) is left to the next call.
-- SECURITY DEFINER: a worker removes what is over by this function only.
CREATE OR REPLACE FUNCTION {schema}.workflow_prune(run_ids bigint[], most integer) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
AS $body$
DECLARE
    gone bigint[];
    total integer := 0;
    number integer;
BEGIN
    WITH old AS MATERIALIZED (
        SELECT id FROM {schema}.workflow WHERE id = ANY (run_ids) AND state <> 'running' FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM {schema}.workflow WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
    ), remembered AS (
        INSERT INTO {schema}.workflow_turn (kind, subject_id) SELECT 'prune', id FROM removed
    )
    SELECT count(*) INTO total FROM removed;
    gone := ARRAY(SELECT subject_id FROM {schema}.workflow_turn WHERE kind = 'prune' AND subject_id = ANY (run_ids) FOR UPDATE SKIP LOCKED);
    WITH old AS MATERIALIZED (
        SELECT id FROM {schema}.workflow_join WHERE workflow_id = ANY (gone) FOR UPDATE SKIP LOCKED
    ), arrivals AS (
        DELETE FROM {schema}.workflow_arrival WHERE join_id = ANY (ARRAY(SELECT id FROM old))
    ), removed AS (
        DELETE FROM {schema}.workflow_join WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
    )
    SELECT count(*) + total INTO total FROM removed;
    WITH old AS MATERIALIZED (
        SELECT locked.node_id, locked.item
        FROM unnest(gone) AS run (id)
        CROSS JOIN LATERAL (SELECT one.id FROM {schema}.workflow_node AS one WHERE one.workflow_id = run.id ORDER BY one.number OFFSET 0) AS node
        CROSS JOIN LATERAL (
            SELECT node_id, item FROM {schema}.workflow_result AS result WHERE result.node_id = node.id LIMIT most FOR UPDATE SKIP LOCKED
        ) AS locked
        LIMIT most
    ), removed AS (
        DELETE FROM {schema}.workflow_result AS result USING old WHERE result.node_id = old.node_id AND result.item = old.item
        RETURNING result.item
    )
    SELECT count(*) INTO number FROM removed;
    total := total + number;
    -- Node by node, so that the next call does not pass by those whose results are gone.
    WITH old AS MATERIALIZED (
        SELECT node.id
        FROM unnest(gone) AS run (id)
        CROSS JOIN LATERAL (SELECT one.id FROM {schema}.workflow_node AS one WHERE one.workflow_id = run.id ORDER BY one.number OFFSET 0) AS node
        WHERE NOT EXISTS (SELECT FROM {schema}.workflow_result AS result WHERE result.node_id = node.id OFFSET 0)
        LIMIT most
    ), stopped AS (
        DELETE FROM {schema}.workflow_turn WHERE kind IN ('expand', 'stopped') AND subject_id = ANY (ARRAY(SELECT id FROM old))
    ), removed AS (
        DELETE FROM {schema}.workflow_node WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
    )
    SELECT count(*) INTO number FROM removed;
    DELETE FROM {schema}.workflow_turn AS turn
    WHERE turn.kind IN ('prune', 'cancel') AND turn.subject_id = ANY (gone)
      AND NOT EXISTS (SELECT FROM {schema}.workflow_node AS node WHERE node.workflow_id = turn.subject_id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.workflow_join AS one WHERE one.workflow_id = turn.subject_id OFFSET 0);
    RETURN total + number;
END
$body$;
