-- A worker that has given up all its jobs goes; one that still has some must be rescued from, not forgotten.
DELETE FROM {schema}.worker
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM {schema}.job WHERE worker_id = %(id)s AND state = 'running')
