-- Returns the newest steps of a durable job by their place, at most `limit`, and how many it has. A result that takes more than `bytes`
-- bytes as stored is NULL. A child's job has the id of its run's only node.
-- A sleep is over when its time is: its end is stored with the next step, or never if it was the last one.
-- Plan: job_step_pkey for the job twice, a sort of its steps without their values; then workflow_pkey, workflow_node_number_idx and
-- job_pkey for each child that is returned: LIMIT 1 keeps the planner from a join of whole tables.
SELECT step.place, step.number, step.kind, step.name, step.attempt, step.tries, step.started_at, step.wake_at, step.args,
       CASE WHEN step.is_over THEN 'done' ELSE step.state END AS state,
       CASE WHEN step.is_over THEN step.wake_at ELSE step.finished_at END AS finished_at,
       CASE WHEN pg_column_size(step.result) <= %(bytes)s THEN step.result::text END AS result,
       pg_column_size(step.result) AS result_bytes,
       step.error ->> 'type' AS error_type, left(step.error ->> 'message', 2000) AS error,
       step.child_id AS child_run, child.job AS child_job, child.state AS child_state,
       (SELECT count(*) FROM {schema}.job_step AS counted WHERE counted.job_id = %(id)s::bigint) AS total
FROM (
    SELECT one.*, one.kind = 'sleep' AND one.state = 'waiting' AND one.wake_at <= clock_timestamp() AS is_over
    FROM {schema}.job_step AS one
    WHERE one.job_id = %(id)s::bigint
    ORDER BY one.place DESC, one.kind, one.name, one.number LIMIT %(limit)s
) AS step
LEFT JOIN LATERAL (
    SELECT node.id AS job,
           coalesce(CASE WHEN job.state = 'ready' AND job.run_at > clock_timestamp() THEN 'scheduled' ELSE job.state END, run.state) AS state
    FROM {schema}.workflow AS run
    LEFT JOIN {schema}.workflow_node AS node ON node.workflow_id = run.id AND node.number = 1
    LEFT JOIN {schema}.job AS job ON job.id = node.id
    WHERE run.id = step.child_id LIMIT 1
) AS child ON true
ORDER BY step.place DESC, step.kind, step.name, step.number
