-- The condition that the durable job $job has steps to undo: its end as cancelled is left to a worker, which undoes them first.
-- OFFSET 0: or the planner may read all steps once, and hash them.
-- Plan: job_step_pkey.
EXISTS (
    SELECT FROM {schema}.job_step AS done
    WHERE done.job_id = $job AND done.undo IS NOT NULL AND done.state = 'done' AND strpos(done.args_hash, '/') = 0
    OFFSET 0)
