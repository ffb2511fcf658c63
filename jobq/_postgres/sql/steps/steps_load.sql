-- Returns the stored steps of durable jobs, without those that were undone (steps_undone.sql), and whether the job is being cancelled.
-- One job at a time: for a list of jobs, the planner may scan the whole index of ages and skip.
-- Plan: Index Scan using job_step_pkey, job_pkey; no Seq Scan on job_step.
SELECT wanted.id, step.kind, step.name, step.args_hash, step.number, step.place, step.state, step.args, step.result::text AS result,
       step.error::text AS error, step.child_id, step.tries,
       extract(epoch FROM step.wake_at - clock_timestamp())::double precision AS seconds_left, step.undo,
       coalesce(job.is_cancelling, false) AS is_cancelling
FROM unnest(%(ids)s::bigint[]) AS wanted (id)
LEFT JOIN LATERAL (
    SELECT one.cancel_requested_at IS NOT NULL AS is_cancelling FROM {schema}.job AS one WHERE one.id = wanted.id OFFSET 0
) AS job ON true
CROSS JOIN LATERAL (SELECT * FROM {schema}.job_step AS one WHERE one.job_id = wanted.id OFFSET 0) AS step
WHERE strpos(step.args_hash, '/') = 0
