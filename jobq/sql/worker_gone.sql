-- A dead worker from which all jobs were taken back goes. Nothing of it is left, and it has not come back to life.
-- Plan: worker_pkey; job_running_idx.
DELETE FROM {schema}.worker
WHERE id = %(dead)s AND beats = %(beats)s
  AND NOT EXISTS (SELECT FROM {schema}.job WHERE worker_id = %(dead)s AND state = 'running')
RETURNING 1
