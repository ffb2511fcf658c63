-- Returns whether there are parked jobs, or refused ones in queues with rules, of these tasks. It
-- runs often, so it may return true when there is nothing to do.
-- ORDER BY leads the planner to the index: it assumes that the conditions are rarely met.
-- Plan: job_parked_idx, one descent for each task; no Seq Scan on job.
SELECT EXISTS (
    SELECT FROM unnest(%(tasks)s::text[]) AS known (task)
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job AS job
        WHERE job.task = known.task AND
            --include parked_jobs
        ORDER BY job.priority
        LIMIT 1
    ) AS refused
)
