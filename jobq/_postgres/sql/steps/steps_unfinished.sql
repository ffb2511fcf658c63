-- Returns unfinished jobs that have stored steps, with ids above %(after)s, in their order, and the last id that was looked at: the next
-- call begins there. It jumps from job to job in the index of steps, over at most %(most)s jobs, those that have finished included.
-- Plan: Index Only Scan using job_step_pkey, for each job; job_pkey. No Seq Scan.
WITH RECURSIVE found (id, n) AS (
    SELECT (SELECT step.job_id FROM {schema}.job_step AS step WHERE step.job_id > %(after)s::bigint ORDER BY step.job_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT step.job_id FROM {schema}.job_step AS step WHERE step.job_id > found.id ORDER BY step.job_id LIMIT 1), found.n + 1
    FROM found WHERE found.id IS NOT NULL AND found.n < %(most)s
)
SELECT job.id, job.task, job.args::text AS args, job.queue, job.attempt, job.max_attempts, job.headers::text AS headers,
       (SELECT CASE WHEN count(*) = %(most)s THEN max(id) END FROM found WHERE id IS NOT NULL) AS next_after
FROM (SELECT NULL::bigint AS id UNION ALL SELECT id FROM found WHERE id IS NOT NULL) AS looked
LEFT JOIN {schema}.job AS job ON job.id = looked.id
WHERE looked.id IS NULL OR job.id IS NOT NULL
ORDER BY job.id NULLS FIRST
