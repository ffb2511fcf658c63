-- What the database thinks that this worker is running, to be compared with what it is running: id, claims, and when it was
-- claimed, in microseconds.
-- Plan: Index Scan using job_running_idx.
SELECT id, claims, (extract(epoch FROM started_at) * 1000000)::bigint
FROM {schema}.job WHERE worker_id = %(worker)s AND state = 'running' ORDER BY id
