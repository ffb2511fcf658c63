-- Tells the next execution of each of $jobs (job_id, attempt, ending, error_type, message) to undo the job's steps, and to end it by
-- `ending`: the name of a Disposition. jobq/steps/log.py knows this row as VERDICT.
-- Plan: job_step_pkey.
INSERT INTO {schema}.job_step (job_id, kind, name, args_hash, number, place, state, started_at, finished_at, attempt, result)
SELECT told.job_id, 'undo', '', '', 0,
       1 + (SELECT max(step.place) FROM {schema}.job_step AS step WHERE step.job_id = told.job_id), 'done', clock_timestamp(),
       clock_timestamp(), told.attempt,
       jsonb_build_object('ending', told.ending, 'type', told.error_type, 'message', told.message)
FROM $jobs AS told
