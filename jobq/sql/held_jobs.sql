-- What the database thinks that this worker is running, to be compared with what it is running.
-- Plan: Index Scan using job_running_idx.
SELECT id, claims FROM {schema}.job WHERE worker_id = %(worker)s AND state = 'running' ORDER BY id
