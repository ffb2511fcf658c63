-- The next live jobs that fit a filter, by id.
-- Plan: job_pkey from `after` to `last`, a bounded range; the filter is applied on the way.
SELECT job.id FROM {schema}.job
WHERE job.id > %(after)s AND job.id <= %(last)s
  AND %(state)s = CASE WHEN job.state = 'ready' AND job.run_at > now() THEN 'scheduled' ELSE job.state END
  AND (%(queue)s::text IS NULL OR job.queue = %(queue)s)
  AND (%(task)s::text IS NULL OR job.task = %(task)s)
ORDER BY job.id
LIMIT %(limit)s
