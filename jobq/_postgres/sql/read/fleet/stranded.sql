-- Counts running jobs by their worker, if the worker has been silent for too long or has no row
-- (NULL): among at most `bound` jobs, those that have run for longer than `seconds`.
-- Plan: job_running_idx up to `bound` entries; the worker table is read whole.
SELECT worker.host, worker.pid, count(*)::integer AS number,
       extract(epoch FROM clock_timestamp() - min(job.started_at))::double precision AS oldest_seconds
FROM (SELECT worker_id, started_at FROM {schema}.job WHERE state = 'running' LIMIT %(bound)s) AS job
LEFT JOIN {schema}.worker ON worker.id = job.worker_id
WHERE job.started_at < clock_timestamp() - %(seconds)s * interval '1 second'
  AND (worker.id IS NULL
       OR worker.heartbeat_at < clock_timestamp() - (worker.lease + %(seconds)s) * interval '1 second')
GROUP BY worker.host, worker.pid
ORDER BY worker.host, worker.pid
LIMIT 100
