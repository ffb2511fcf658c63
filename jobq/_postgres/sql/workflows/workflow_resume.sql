-- Releases what a retry has made ready (functions/workflows/workflow_resume.sql).
SELECT {schema}.workflow_resume(%(id)s)
