-- Returns what a suspended job waits for: its steps that are not over, in their order, at most `limit`, and how many there are.
-- `sent`: a signal that such a step may take has been sent and not been taken.
-- Plan: job_step_pkey for the job, a sort of its waiting steps; then job_signal_job_idx and job_signal_workflow_idx for each signal, and
-- workflow_pkey, workflow_node_number_idx and job_pkey for each child that is returned: LIMIT 1 keeps the planner from a join of whole
-- tables.
SELECT step.kind, step.name, step.state, step.wake_at, step.tries, step.error ->> 'type' AS error_type,
       left(step.error ->> 'message', 500) AS error, step.total, child.run_state, child.job AS child_job, child.task AS child_task,
       child.state AS child_state,
       -- Counted: for EXISTS or LIMIT 1 the planner would read signals of other jobs.
       step.kind = 'signal' AND (
           (SELECT count(*) FROM {schema}.job_signal AS own
            WHERE own.job_id = %(id)s::bigint AND own.name = step.name AND own.taken_at IS NULL)
           + (SELECT count(*) FROM {schema}.job_signal AS common
              WHERE common.workflow_id = step.workflow_id AND common.name = step.name AND common.taken_at IS NULL)) > 0 AS sent
FROM (
    SELECT one.kind, one.name, one.state, one.wake_at, one.tries, one.error, one.child_id, one.workflow_id, one.place,
           count(*) OVER () AS total
    FROM {schema}.job_step AS one
    WHERE one.job_id = %(id)s::bigint AND one.state IN ('waiting', 'retrying')
      AND strpos(one.args_hash, '/') = 0
      AND (one.wake_at > clock_timestamp() OR one.kind IN ('signal', 'child'))
    ORDER BY one.place LIMIT %(limit)s
) AS step
LEFT JOIN LATERAL (
    SELECT run.state AS run_state, node.id AS job, node.task,
           coalesce(CASE WHEN job.state = 'ready' AND job.run_at > clock_timestamp() THEN 'scheduled' ELSE job.state END, run.state) AS state
    FROM {schema}.workflow AS run
    LEFT JOIN {schema}.workflow_node AS node ON node.workflow_id = run.id AND node.number = 1
    LEFT JOIN {schema}.job AS job ON job.id = node.id
    WHERE run.id = step.child_id LIMIT 1
) AS child ON true
ORDER BY step.place
