-- Removes ended runs, or parts of them (functions/workflows/workflow_prune.sql). Returns the number of removed rows.
SELECT {schema}.workflow_prune(%(ids)s, %(most)s)
