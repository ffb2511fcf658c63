-- Live and finished jobs as one list with `floor` <= id < `before`, newest first.
-- Plan: job_pkey and each partition's job_history_id_idx backwards, a page of each, merged.
SELECT * FROM (
    (SELECT job.id, job.task, job.queue,
            CASE WHEN job.state = 'ready' AND job.run_at > statement_timestamp() THEN 'scheduled' ELSE job.state END AS state,
            job.priority, job.attempt, job.max_attempts, job.run_at, job.created_at, job.started_at,
            NULL::timestamptz AS finished_at, job.cancel_requested_at, job.worker_id, job.key, NULL::text AS error,
            CASE WHEN pg_column_size(job.args) <= 2000 THEN job.args::text END AS args, job.progress::text AS progress
     FROM {schema}.job
     WHERE job.id >= %(floor)s AND job.id < %(before)s
       AND (%(queue)s::text IS NULL OR job.queue = %(queue)s)
       AND (%(task)s::text IS NULL OR job.task = %(task)s)
     ORDER BY job.id DESC
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, task, queue, state, priority, attempt, max_attempts, run_at, created_at, started_at, finished_at,
            NULL::timestamptz, worker_id, key, left(error, 500),
            CASE WHEN pg_column_size(args) <= 2000 THEN args::text END, NULL::text
     FROM {schema}.job_history
     WHERE id >= %(floor)s AND id < %(before)s
       AND (%(queue)s::text IS NULL OR queue = %(queue)s)
       AND (%(task)s::text IS NULL OR task = %(task)s)
     ORDER BY id DESC
     LIMIT %(limit)s)
) AS entry
ORDER BY entry.id DESC
LIMIT %(limit)s
