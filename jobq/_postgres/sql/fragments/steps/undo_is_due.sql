-- The condition that the durable job $job has steps to undo, and was not yet put back to undo them (undo_verdict.sql).
-- It is for jobs that end by the death of their runner or worker, perhaps while their steps are being undone: they are run once more
-- for that. Once, so that an undo that ends its runner does not run for ever.
-- Plan: job_step_pkey, twice.
(
    --include steps/has_undo job=$job
    AND NOT EXISTS (
        SELECT FROM {schema}.job_step AS told
        WHERE told.job_id = $job AND told.kind = 'undo' AND told.name = '' AND told.args_hash = '' AND told.number = 0
          AND told.result -> 'again' IS NOT NULL
        OFFSET 0)
)
