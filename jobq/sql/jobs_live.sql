-- Live jobs with `floor` <= id < `before`, newest first. Only the page's own rows read their arguments, and only small ones.
-- Plan: job_pkey backwards; filters are applied on the way, so the caller bounds [floor, before) when it filters.
SELECT job.id, job.task, job.queue,
       CASE WHEN job.state = 'ready' AND job.run_at > statement_timestamp() THEN 'scheduled' ELSE job.state END AS state,
       job.priority, job.attempt, job.max_attempts, job.run_at, job.created_at, job.started_at,
       NULL::timestamptz AS finished_at, job.cancel_requested_at, job.worker_id, job.key, NULL::text AS error,
       CASE WHEN pg_column_size(job.args) <= 2000 THEN job.args::text END AS args, job.progress::text AS progress
FROM {schema}.job
WHERE job.id >= %(floor)s AND job.id < %(before)s
  AND (%(state)s::text IS NULL
       OR %(state)s = CASE WHEN job.state = 'ready' AND job.run_at > statement_timestamp() THEN 'scheduled' ELSE job.state END)
  AND (%(queue)s::text IS NULL OR job.queue = %(queue)s)
  AND (%(task)s::text IS NULL OR job.task = %(task)s)
ORDER BY job.id DESC
LIMIT %(limit)s
