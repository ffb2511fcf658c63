-- Asks that the children of durable jobs, which have been cancelled or deleted, be cancelled: runs of workflows that still run. The workers'
-- loop does it (workflow_step). A run that another transaction has locked is ending, or being cancelled.
-- SECURITY DEFINER: who may cancel a job cancels its children with it.
CREATE OR REPLACE FUNCTION {schema}.cancel_children(job_ids bigint[]) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
BEGIN
    IF cardinality(job_ids) = 0 THEN
        RETURN;
    END IF;
    WITH children AS MATERIALIZED (
        SELECT run.id FROM {schema}.workflow AS run
        WHERE run.parent_job_id IS NOT NULL AND run.parent_job_id = ANY (job_ids) AND run.state = 'running' AND run.cancel_requested_at IS NULL
        FOR NO KEY UPDATE SKIP LOCKED
    ), told AS (
        UPDATE {schema}.workflow SET cancel_as = 'cancelled', reason = 'the job that started it was cancelled'
        WHERE id = ANY (ARRAY(SELECT id FROM children)) RETURNING id
    )
    INSERT INTO {schema}.workflow_turn (kind, subject_id) SELECT 'cancel', id FROM told;
    IF FOUND THEN
        PERFORM {schema}.workflow_notify();
    END IF;
END
$body$;
