-- Running jobs with `floor` <= id < `before`, newest first.
-- Plan: job_running_idx, which holds no more than the workers' slots, then a sort of that little.
WITH running AS MATERIALIZED (
    SELECT id FROM {schema}.job WHERE state = 'running'
)
SELECT job.id, job.task, job.queue, job.state,
       job.priority, job.attempt, job.max_attempts, job.run_at, job.created_at, job.started_at,
       NULL::timestamptz AS finished_at, job.cancel_requested_at, job.worker_id, job.key, NULL::text AS error,
       CASE WHEN pg_column_size(job.args) <= 2000 THEN job.args::text END AS args, job.progress::text AS progress
FROM {schema}.job
WHERE job.id = ANY(ARRAY(SELECT id FROM running)) AND job.id >= %(floor)s AND job.id < %(before)s
  AND job.state = %(state)s
  AND (%(queue)s::text IS NULL OR job.queue = %(queue)s)
  AND (%(task)s::text IS NULL OR job.task = %(task)s)
ORDER BY job.id DESC
LIMIT %(limit)s
