-- Returns the jobs that are running according to the database, for comparison with those that run
-- in this worker: id, claims, and the moment of the claim in microseconds.
-- Plan: Index Scan using job_running_idx.
SELECT id, claims, (extract(epoch FROM started_at) * 1000000)::bigint
FROM {schema}.job WHERE worker_id = %(worker)s AND state = 'running' ORDER BY id
