-- Asks that the runs of these nodes, which have failed, be cancelled, if that is their rule. The worker's loop does it (workflow_step):
-- it may be much, and it waits for the run's lock. A node whose end, whatever it is, is what its dependants want, cancels nothing.
CREATE OR REPLACE FUNCTION {schema}.workflow_failed(ids bigint[]) RETURNS void
LANGUAGE plpgsql
AS $body$
BEGIN
    INSERT INTO {schema}.workflow_turn (kind, subject_id)
    SELECT DISTINCT 'cancel', run.id
    FROM unnest(ids) AS failed (id)
    CROSS JOIN LATERAL (SELECT workflow_id, feeds FROM {schema}.workflow_node WHERE workflow_node.id = failed.id OFFSET 0) AS node
    JOIN {schema}.workflow AS run ON run.id = node.workflow_id
    WHERE run.on_failure = 'cancel' AND run.cancel_requested_at IS NULL AND 0 < ANY (node.feeds);
    IF FOUND THEN
        PERFORM {schema}.workflow_notify();
    END IF;
END
$body$;
