-- Makes a run ready to go on (functions/workflows/workflow_retry.sql). NULL: it cannot. Else the ids of its jobs that did not succeed,
-- and how many of them were gone and start again from their nodes. The third column: why it is refused.
SELECT jobs, restarted, refusal FROM {schema}.workflow_retry(%(id)s)
