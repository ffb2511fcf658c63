-- Cancels a run (functions/workflows/workflow_cancel.sql). NULL: there is no such run, it has ended, or nothing demands it any more. Else the ids
-- of its jobs, at most 5,000.
SELECT {schema}.workflow_cancel(%(id)s, %(as_state)s, %(reason)s, %(if_due)s)
