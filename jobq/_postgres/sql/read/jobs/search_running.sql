-- Returns the ids of running jobs, of one worker or of all.
-- Plan: job_running_idx, which holds no more than the workers' slots.
SELECT id FROM {schema}.job
WHERE state = 'running' AND (%(worker)s::uuid IS NULL OR worker_id = %(worker)s)
ORDER BY worker_id
LIMIT %(limit)s
