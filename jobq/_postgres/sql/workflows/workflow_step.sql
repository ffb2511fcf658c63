-- One step of what the ends of nodes have left to others (functions/workflows/workflow_step.sql): how much was done; the runs that are to be
-- cancelled, by their rule for failures or because a cancellation was not carried to its end; those whose deadline has passed; and the
-- seconds until the next look: until the next deadline, and at most one while a map is being expanded or a run is to be undone, by a worker that may die; and
-- whether durable jobs are to be woken (wake_waiting.sql), so that a look at nothing is one statement.
-- Plan: workflow_arrival_pkey, workflow_turn_pkey, workflow_deadline_idx, job_wakeup_pkey.
SELECT {schema}.workflow_step(%(joins_left_out)s::bigint[], %(turns_left_out)s::bigint[], %(only_joins)s::bigint[], %(only_turns)s::bigint[]),
       ARRAY(SELECT subject_id FROM {schema}.workflow_turn WHERE kind = 'cancel' ORDER BY id LIMIT 10),
       ARRAY(SELECT id FROM {schema}.workflow
             WHERE state = 'running' AND deadline_at <= clock_timestamp() AND cancel_requested_at IS NULL
             ORDER BY deadline_at LIMIT 10),
       least((SELECT extract(epoch FROM deadline_at - clock_timestamp())::float8 FROM {schema}.workflow
        WHERE state = 'running' AND deadline_at > clock_timestamp() ORDER BY deadline_at LIMIT 1),
             CASE WHEN EXISTS (SELECT FROM {schema}.workflow_turn WHERE kind IN ('expand', 'undo')) THEN 1.0::float8 END),
       EXISTS (SELECT FROM {schema}.job_wakeup)
