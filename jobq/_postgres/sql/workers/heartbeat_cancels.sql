-- Returns the jobs of a worker that an operator wants to stop.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
SELECT id FROM {schema}.job
WHERE worker_id = %(id)s AND state = 'running' AND cancel_requested_at IS NOT NULL
ORDER BY id
