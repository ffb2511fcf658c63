-- Counts ends at joins, and starts or ends what waits for the joins that are complete by that. Arrays in parallel, one element a
-- join, no join twice, in the order of their ids.
--
-- No transaction waits for another one here. A join that another transaction has locked gets a row in workflow_arrival instead of a
-- change of its counts; the transaction that has the lock later adds these rows up (workflow_step, if no other end comes). So an end is counted in
-- the transaction in which it is written, or it is written there that it is to be counted: no end is lost, and none is counted twice.
-- That holds for released joins, too: their counts are right when a retry opens them again.
-- The row of a join is locked before its counts are read, in READ COMMITTED: the last of several ends sees all others. In the other
-- isolation levels, where a lock could fail, every end becomes an arrival.
--
-- A join is complete when all its parents have ended. It has a verdict: bad, if more parents failed than it tolerates; skipped, if
-- one was skipped by its condition; else good. Good: its nodes start. Skipped: they are skipped. Bad: they wait for an operator
-- (hold), or end as upstream_failed (continue). In a run that is being cancelled, whatever the verdict, they end as cancelled. A map's
-- join ends the map's node, the last join ends the run.
-- A release takes a lock in shared mode that a cancellation of the run, a retry of it and a retry of its jobs take alone: of the two,
-- the later one sees what the earlier one did. What a retry has taken back while the join was locked here is an arrival then, and the
-- release is left to workflow_step; so it is if the lock is taken. There are 64 such locks for all runs, so that a transaction never
-- holds more.
--
-- After 50 rounds, what is left becomes arrivals: a chain of a thousand skipped nodes must not hold up an acknowledgement.
--
-- One statement does a step for all joins: an acknowledgement may end hundreds of nodes.
CREATE OR REPLACE FUNCTION {schema}.workflow_advance(joins bigint[], ends integer[], failures integer[], skips integer[]) RETURNS void
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    may_lock constant boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
    held {schema}.workflow_join[];
    held_ids bigint[];
    arrived record;
    place integer;
    locks integer[];
    released bigint[];
    -- The state in which the nodes of each of these end; NULL: they start.
    verdicts text[];
    rounds integer := 0;
    starting bigint[];
    ended bigint[];
    states text[];
    failing bigint[];
    postponed bigint[];
    is_released boolean[];
    finished bigint[];
    finished_states text[];
BEGIN
    -- A NULL array has no cardinality: there is nothing to count.
    WHILE cardinality(joins) > 0 LOOP
        held := '{}';
        held_ids := '{}';
        IF may_lock AND rounds < 50 THEN
            -- Rows that are locked are the newest ones, whatever this statement's snapshot sees. The counts of those that are not are left over.
            SELECT coalesce(array_agg(locked.whole ORDER BY locked.id), '{}'), coalesce(array_agg(locked.id ORDER BY locked.id), '{}')
            INTO held, held_ids
            FROM (
                SELECT one.id, one AS whole FROM {schema}.workflow_join AS one WHERE one.id = ANY (joins)
                FOR NO KEY UPDATE SKIP LOCKED
            ) AS locked;
        END IF;
        rounds := rounds + 1;
        IF cardinality(held_ids) < cardinality(joins) THEN
            -- What is left without these: joins of runs that retention has removed.
            INSERT INTO {schema}.workflow_arrival (join_id, ends, failed, skipped)
            SELECT given.id, given.ends, given.failures, given.skips
            FROM unnest(joins, ends, failures, skips) AS given (id, ends, failures, skips)
            WHERE given.id <> ALL (held_ids)
              AND (given.ends <> 0 OR given.failures <> 0 OR given.skips <> 0 OR NOT may_lock)
              AND EXISTS (SELECT FROM {schema}.workflow_join AS one WHERE one.id = given.id);
            IF FOUND THEN
                PERFORM {schema}.workflow_notify();
            END IF;
            EXIT WHEN cardinality(held_ids) = 0;
            SELECT array_agg(given.ends ORDER BY given.id), array_agg(given.failures ORDER BY given.id),
                   array_agg(given.skips ORDER BY given.id)
            INTO ends, failures, skips
            FROM unnest(joins, ends, failures, skips) AS given (id, ends, failures, skips)
            WHERE given.id = ANY (held_ids);
        END IF;
        FOR arrived IN
            WITH folded AS (
                DELETE FROM {schema}.workflow_arrival WHERE join_id = ANY (held_ids) RETURNING join_id, ends, failed, skipped
            )
            SELECT folded.join_id, sum(folded.ends)::integer AS ends, sum(folded.failed)::integer AS failed,
                   sum(folded.skipped)::integer AS skipped
            FROM folded GROUP BY folded.join_id
        LOOP
            place := array_position(held_ids, arrived.join_id);
            ends[place] := ends[place] + arrived.ends;
            failures[place] := failures[place] + arrived.failed;
            skips[place] := skips[place] + arrived.skipped;
        END LOOP;
        -- Before the next statement takes its snapshot.
        locks := ARRAY(
            SELECT DISTINCT (one.workflow_id % 64)::integer
            FROM unnest(held, ends) AS one (id, workflow_id, node_id, released_at, parents, remaining, failed, skipped, tolerated, kind, ends)
            WHERE one.remaining = one.ends AND one.released_at IS NULL ORDER BY 1);
        locks := ARRAY(SELECT key FROM unnest(locks) AS key
                       WHERE pg_try_advisory_xact_lock_shared('{schema}.workflow'::regclass::oid::integer, key));
        WITH counts AS (
            SELECT one.id, one.kind, one.node_id, one.workflow_id, one.remaining - one.ends AS remaining,
                   one.remaining = one.ends AND one.released_at IS NULL AS is_complete,
                   one.failed + one.failures AS failed, one.skipped + one.skips AS skipped,
                   one.failed + one.failures > one.tolerated AS is_bad, (one.workflow_id % 64)::integer = ANY (locks) AS has_lock
            FROM unnest(held, ends, failures, skips)
                 AS one (id, workflow_id, node_id, released_at, parents, remaining, failed, skipped, tolerated, kind, ends, failures, skips)
        ), decided AS MATERIALIZED (
            SELECT counts.*, run.is_cancelled, run.cancel_as,
                   coalesce(counts.is_complete AND counts.has_lock
                            AND counts.id <> ALL (ARRAY(SELECT late.join_id FROM {schema}.workflow_arrival AS late WHERE late.join_id = ANY (held_ids)))
                            AND NOT (counts.is_bad AND run.on_failure = 'hold' AND NOT run.is_cancelled AND counts.kind <> 'map'), false) AS goes
            FROM counts LEFT JOIN LATERAL (
                SELECT on_failure, cancel_requested_at IS NOT NULL AS is_cancelled, cancel_as
                FROM {schema}.workflow WHERE workflow.id = counts.workflow_id AND counts.is_complete OFFSET 0
            ) AS run ON true
        )
        SELECT array_agg(decided.id) FILTER (WHERE decided.goes AND decided.kind = 'nodes'),
               array_agg(CASE WHEN is_cancelled THEN 'cancelled' WHEN is_bad THEN 'upstream_failed' WHEN skipped > 0 THEN 'skipped' END)
                   FILTER (WHERE decided.goes AND decided.kind = 'nodes'),
               coalesce(array_agg(decided.node_id) FILTER (WHERE decided.goes AND decided.kind = 'map'), '{}'),
               coalesce(array_agg(CASE WHEN NOT is_bad THEN 'succeeded' WHEN is_cancelled THEN 'cancelled' ELSE 'failed' END)
                        FILTER (WHERE decided.goes AND decided.kind = 'map'), '{}'),
               array_agg(decided.id) FILTER (WHERE decided.is_complete AND NOT decided.has_lock),
               array_agg(decided.goes ORDER BY decided.id),
               array_agg(decided.workflow_id ORDER BY decided.workflow_id) FILTER (WHERE decided.goes AND decided.kind = 'end'),
               array_agg(CASE WHEN is_cancelled THEN cancel_as WHEN is_bad THEN 'failed' ELSE 'succeeded' END ORDER BY decided.workflow_id)
                   FILTER (WHERE decided.goes AND decided.kind = 'end')
        INTO released, verdicts, ended, states, postponed, is_released, finished, finished_states
        FROM decided;
        -- Without a join to the arrays: if the statistics are of a time when the table was empty, the planner reads all of it for each
        -- element. width_bucket finds an element's place in an array that is sorted.
        UPDATE {schema}.workflow_join AS one
        SET remaining = one.remaining - ends[width_bucket(one.id, held_ids)], failed = one.failed + failures[width_bucket(one.id, held_ids)],
            skipped = one.skipped + skips[width_bucket(one.id, held_ids)],
            released_at = CASE WHEN is_released[width_bucket(one.id, held_ids)] THEN clock_timestamp() ELSE one.released_at END
        WHERE one.id = ANY (held_ids);
        IF finished IS NOT NULL THEN
            UPDATE {schema}.workflow AS run
            SET state = finished_states[width_bucket(run.id, finished)], finished_at = clock_timestamp()
            WHERE run.id = ANY (finished);
            -- A durable job waits for the end of such a run.
            INSERT INTO {schema}.job_wakeup (job_id)
            SELECT run.parent_job_id FROM {schema}.workflow AS run WHERE run.id = ANY (finished) AND run.parent_job_id IS NOT NULL;
            IF FOUND THEN
                PERFORM {schema}.workflow_notify();
            END IF;
            IF array_remove(finished_states, 'succeeded') <> '{}' THEN
                -- What was done is undone by workflow_step: a result that is refused there must not hold up this end.
                INSERT INTO {schema}.workflow_turn (kind, subject_id)
                SELECT 'undo', given_up.id FROM unnest(finished, finished_states) AS given_up (id, state)
                WHERE given_up.state <> 'succeeded'
                  AND EXISTS (SELECT FROM {schema}.workflow_node AS node WHERE node.workflow_id = given_up.id AND node.undo IS NOT NULL OFFSET 0);
                IF FOUND THEN
                    PERFORM {schema}.workflow_notify();
                END IF;
            END IF;
        END IF;
        IF postponed IS NOT NULL THEN
            INSERT INTO {schema}.workflow_arrival (join_id, ends, failed, skipped) SELECT one, 0, 0, 0 FROM unnest(postponed) AS one;
            PERFORM {schema}.workflow_notify();
        END IF;
        starting := '{}';
        IF released IS NOT NULL THEN
            -- A join that a retry has opened again: some of its nodes may have ended, and others run.
            -- OFFSET 0 keeps each EXISTS a probe of an index, whatever the statistics say.
            SELECT coalesce(array_agg(node.id) FILTER (WHERE decided.goes), '{}'),
                   ended || coalesce(array_agg(node.id) FILTER (WHERE NOT decided.goes), '{}'),
                   states || coalesce(array_agg(coalesce(joined.verdict, 'skipped')) FILTER (WHERE NOT decided.goes), '{}')
            INTO starting, ended, states
            FROM unnest(released, verdicts) AS joined (id, verdict)
            CROSS JOIN LATERAL (SELECT id, members_join_id, condition FROM {schema}.workflow_node WHERE join_id = joined.id OFFSET 0) AS node
            CROSS JOIN LATERAL (
                SELECT joined.verdict IS NULL
                       AND (node.condition IS NULL
                            OR coalesce({schema}.workflow_value(node.condition), 'null') NOT IN ('null', 'false', '0', '""', '[]', '{}')) AS goes
            ) AS decided
            WHERE NOT EXISTS (SELECT FROM {schema}.workflow_result AS result WHERE result.node_id = node.id OFFSET 0)
              AND NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = node.id OFFSET 0)
              AND NOT EXISTS (SELECT FROM {schema}.workflow_join AS members
                              WHERE members.id = node.members_join_id AND members.parents > 0 OFFSET 0);
        END IF;
        IF cardinality(ended) > 0 THEN
            INSERT INTO {schema}.workflow_result (node_id, item, state, started_at, finished_at, error)
            SELECT node.id, CASE node.kind WHEN 'map' THEN -1 ELSE 0 END, over.state,
                   CASE WHEN over.state IN ('succeeded', 'failed') THEN parents.released_at END, clock_timestamp(),
                   CASE over.state WHEN 'failed' THEN 'too many of its items failed'
                                   WHEN 'cancelled' THEN (SELECT reason FROM {schema}.workflow WHERE workflow.id = node.workflow_id) END
            FROM unnest(ended, states) AS over (id, state)
            CROSS JOIN LATERAL (SELECT id, workflow_id, kind, join_id FROM {schema}.workflow_node WHERE workflow_node.id = over.id OFFSET 0) AS node
            LEFT JOIN LATERAL (SELECT released_at FROM {schema}.workflow_join WHERE workflow_join.id = node.join_id OFFSET 0) AS parents ON true
            ON CONFLICT DO NOTHING;
        END IF;
        IF cardinality(starting) > 0 THEN
            SELECT ended || coalesce(array_agg(at_once.node_id), '{}'), states || coalesce(array_agg(at_once.state), '{}')
            INTO ended, states FROM {schema}.workflow_try_start(starting) AS at_once;
        END IF;
        EXIT WHEN cardinality(ended) = 0;
        failing := ARRAY(SELECT over.id FROM unnest(ended, states) AS over (id, state) WHERE over.state = 'failed');
        IF cardinality(failing) > 0 THEN
            PERFORM {schema}.workflow_failed(failing);
        END IF;
        SELECT array_agg(fed.join_id), array_agg(fed.ends), array_agg(fed.failures), array_agg(fed.skips)
        INTO joins, ends, failures, skips
        FROM {schema}.workflow_feeds(ended, array_fill(-1, ARRAY[cardinality(ended)]), states) AS fed;
    END LOOP;
END
$body$;
