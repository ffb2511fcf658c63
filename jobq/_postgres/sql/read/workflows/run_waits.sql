-- Returns the live jobs of a run that wait for signals, by the signals' names, at most `limit`. `sent`: a signal that the job may take
-- has been sent and not been taken.
-- Plan: job_step_workflow_idx in its order; job_pkey, workflow_node_pkey and job_signal_job_idx for each step; job_signal_workflow_idx.
WITH unread AS MATERIALIZED (
    SELECT name, count(*) AS number FROM {schema}.job_signal WHERE workflow_id = %(id)s::bigint AND taken_at IS NULL GROUP BY name
)
SELECT step.job_id, step.name, step.wake_at, node.name AS node, node.number, job.node_item AS item,
       -- Counted: for EXISTS or LIMIT 1 the planner would read signals of other jobs.
       (SELECT count(*) FROM {schema}.job_signal AS own
        WHERE own.job_id = step.job_id AND own.name = step.name AND own.taken_at IS NULL)
       + coalesce(unread.number, 0) > 0 AS sent
FROM {schema}.job_step AS step
JOIN {schema}.job AS job ON job.id = step.job_id
JOIN {schema}.workflow_node AS node ON node.id = job.node_id
LEFT JOIN unread ON unread.name = step.name
WHERE step.workflow_id = %(id)s::bigint AND step.state = 'waiting' AND strpos(step.args_hash, '/') = 0
ORDER BY step.name LIMIT %(limit)s
