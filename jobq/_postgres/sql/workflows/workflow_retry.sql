-- Makes a run ready to go on (functions/workflows/workflow_retry.sql). NULL: it cannot. Else the ids of its jobs that did not succeed,
-- and how many of them were gone and start again from their nodes. The third column: the run that undoes it.
SELECT jobs, restarted, undo_run FROM {schema}.workflow_retry(%(id)s)
