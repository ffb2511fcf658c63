-- Whether there are parked jobs, or refused ones in queues with rules, of these tasks: asked often, so it may say yes when there is nothing to do.
-- ORDER BY leads the planner to the index: it takes the conditions for rare ones.
-- Plan: job_parked_idx, one descent for each task; no Seq Scan on job.
SELECT EXISTS (
    SELECT FROM unnest(%(tasks)s::text[]) AS known (task)
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job AS job
        WHERE job.parked_at IS NOT NULL AND job.task = known.task AND job.state <> 'running' AND job.parked_claims = job.claims
        ORDER BY job.priority
        LIMIT 1
    ) AS refused
)
