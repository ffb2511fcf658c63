-- Undoes a run that has ended (functions/workflows/workflow_undo.sql). Returns the run that undoes it, and why nothing was done.
-- Plan: of the function.
SELECT undo_run, problem FROM {schema}.workflow_undo(%(id)s)
