-- Sends a signal to a durable job, or to a run of a workflow, in the caller's transaction. outcome: `sent`; or nothing was done, because
-- the target has `finished` or is `unknown`.
--
-- It locks nothing and waits for nothing. The row of job_wakeup is looked at by a worker after this transaction has committed; the job
-- that waits writes one, too, when it is put back. The later of the two sees both the signal and the job that waits: no signal is missed.
-- SECURITY DEFINER: a producer may send, and neither read nor change signals.
CREATE OR REPLACE FUNCTION {schema}.try_send_signal(
    job_id bigint, workflow_id bigint, name text, payload jsonb, sent_by text, OUT signal_id bigint, OUT outcome text
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $body$
#variable_conflict use_column
BEGIN
    IF try_send_signal.workflow_id IS NOT NULL THEN
        SELECT CASE run.state WHEN 'running' THEN 'sent' ELSE 'finished' END INTO outcome
        FROM {schema}.workflow AS run WHERE run.id = try_send_signal.workflow_id;
    ELSIF EXISTS (SELECT FROM {schema}.job WHERE job.id = try_send_signal.job_id) THEN
        outcome := 'sent';
    ELSE
        -- A node that has not started has no job yet.
        SELECT CASE WHEN run.state = 'running'
                         AND NOT EXISTS (SELECT FROM {schema}.workflow_result AS ended WHERE ended.node_id = node.id)
                    THEN 'sent' ELSE 'finished' END INTO outcome
        FROM {schema}.workflow_node AS node JOIN {schema}.workflow AS run ON run.id = node.workflow_id
        WHERE node.id = try_send_signal.job_id;
        IF outcome IS NULL AND EXISTS (SELECT FROM {schema}.job_history AS ended WHERE ended.id = try_send_signal.job_id) THEN
            outcome := 'finished';
        END IF;
        -- It may have been put back between two of these looks.
        IF outcome IS NULL AND EXISTS (SELECT FROM {schema}.job WHERE job.id = try_send_signal.job_id) THEN
            outcome := 'sent';
        END IF;
    END IF;
    outcome := coalesce(outcome, 'unknown');
    IF outcome = 'sent' THEN
        INSERT INTO {schema}.job_signal (job_id, workflow_id, name, payload, sent_by)
        VALUES (CASE WHEN try_send_signal.workflow_id IS NULL THEN try_send_signal.job_id END, try_send_signal.workflow_id,
                try_send_signal.name, try_send_signal.payload, try_send_signal.sent_by)
        RETURNING id INTO signal_id;
        INSERT INTO {schema}.job_wakeup (job_id, workflow_id)
        VALUES (CASE WHEN try_send_signal.workflow_id IS NULL THEN try_send_signal.job_id END, try_send_signal.workflow_id);
        PERFORM {schema}.workflow_notify();
    END IF;
END
$body$;
