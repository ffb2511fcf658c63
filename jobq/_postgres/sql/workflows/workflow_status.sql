-- The state of a run, why it was cancelled, and whether it is blocked: a node has failed, and nothing of the run moves.
-- Plan: workflow_pkey; workflow_node_number_idx and job_node_idx up to the first live job.
SELECT run.state, run.reason,
       run.state = 'running' AND EXISTS (
           SELECT FROM {schema}.workflow_join AS parents
           WHERE parents.workflow_id = run.id AND parents.remaining = 0 AND parents.released_at IS NULL
             AND parents.failed > parents.tolerated)
       AND NOT EXISTS (
           SELECT FROM {schema}.workflow_node AS node JOIN {schema}.job AS job ON job.node_id = node.id WHERE node.workflow_id = run.id)
       AND NOT EXISTS (
           SELECT FROM {schema}.workflow_node AS node JOIN {schema}.workflow_turn AS turn ON turn.subject_id = node.id
           WHERE node.workflow_id = run.id AND turn.kind = 'expand') AS is_blocked
FROM {schema}.workflow AS run WHERE run.id = %(id)s
