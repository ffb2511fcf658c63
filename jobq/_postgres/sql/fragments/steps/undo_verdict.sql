-- Tells the next execution of each of $jobs (job_id, attempt, ending, error_type, message) to undo the job's steps, and to end it by
-- `ending`: the name of a Disposition. jobq/steps/log.py knows this row as VERDICT. If an execution has written one, that stays.
-- Steps are written without a lock of the job's row (steps_write.sql): such a row may have come in between.
-- Plan: job_step_pkey.
INSERT INTO {schema}.job_step AS kept (job_id, kind, name, args_hash, number, place, state, started_at, finished_at, attempt, result)
SELECT told.job_id, 'undo', '', '', 0,
       1 + (SELECT max(step.place) FROM {schema}.job_step AS step WHERE step.job_id = told.job_id), 'done', clock_timestamp(),
       clock_timestamp(), told.attempt,
       jsonb_build_object('ending', told.ending, 'type', told.error_type, 'message', told.message, 'again', true)
FROM $jobs AS told
ON CONFLICT (job_id, kind, name, args_hash, number) DO UPDATE SET result = kept.result || jsonb_build_object('again', true)
