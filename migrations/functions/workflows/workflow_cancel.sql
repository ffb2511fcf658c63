-- Cancels a run: none of its nodes starts after the commit. Its jobs are for the caller (jobq/operations/workflows.py), in the same
-- transaction: returns the ids of up to 5,000 that are neither cancelled nor asked to stop; if there are so many, call it again.
-- `as_state`: what the run ends as, cancelled or failed. Nodes that have not started end as cancelled when their parents have ended, so
-- the run ends after its last job. A row of workflow_turn remembers the run: workers finish what a caller that dies has left.
-- `if_due`: only if such a row or the run's deadline demands it, whatever the caller has read before.
-- Returns NULL if there is no such run, or if it has ended.
-- It waits for the releases that are under way: their jobs are among those returned.
CREATE OR REPLACE FUNCTION {schema}.workflow_cancel(run_id bigint, as_state text, because text, if_due boolean DEFAULT false) RETURNS bigint[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock('{schema}.workflow'::regclass::oid::integer, (run_id % 64)::integer);
    UPDATE {schema}.workflow
    SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()), cancel_as = coalesce(cancel_as, as_state),
        reason = coalesce(reason, because)
    WHERE id = run_id AND state = 'running'
      AND (NOT if_due OR deadline_at <= clock_timestamp()
           OR EXISTS (SELECT FROM {schema}.workflow_turn WHERE kind = 'cancel' AND subject_id = run_id));
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO {schema}.workflow_turn (kind, subject_id)
    SELECT 'cancel', run_id WHERE NOT EXISTS (SELECT FROM {schema}.workflow_turn WHERE kind = 'cancel' AND subject_id = run_id);
    PERFORM {schema}.workflow_notify();
    -- Joins that are complete, and waited for an operator.
    PERFORM {schema}.workflow_resume(run_id);
    RETURN ARRAY(
        SELECT job.id FROM {schema}.workflow_node AS node JOIN {schema}.job AS job ON job.node_id = node.id
        WHERE node.workflow_id = run_id AND (job.state <> 'running' OR job.cancel_requested_at IS NULL)
        ORDER BY job.id LIMIT 5000);
END
$body$;
