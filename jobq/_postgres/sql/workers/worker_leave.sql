-- Deletes the row of a worker that holds no jobs any more. A worker that still has some must be
-- rescued, not deleted.
DELETE FROM {schema}.worker
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM {schema}.job WHERE worker_id = %(id)s AND state = 'running')
