-- Deletes the row of a dead worker whose jobs were all taken back, if no job is left and it has
-- sent no heartbeat since.
-- Plan: worker_pkey; job_running_idx.
DELETE FROM {schema}.worker
WHERE id = %(dead)s AND beats = %(beats)s
  AND NOT EXISTS (SELECT FROM {schema}.job WHERE worker_id = %(dead)s AND state = 'running')
RETURNING 1
