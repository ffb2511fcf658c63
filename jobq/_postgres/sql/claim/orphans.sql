-- Returns the jobs that release_orphans.sql would release. If all together are refused, they are
-- released one by one.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
SELECT lost.id FROM {schema}.job AS lost
WHERE lost.state = 'running' AND lost.started_at < now() - interval '1 minute'
  AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = lost.worker_id)
ORDER BY lost.id
