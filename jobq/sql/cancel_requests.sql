-- Those of a worker's running jobs that an operator wants cancelled.
-- Plan: Index Scan using job_running_idx.
SELECT id FROM {schema}.job
WHERE worker_id = %(worker)s AND state = 'running' AND cancel_requested_at IS NOT NULL ORDER BY id
