-- Looks at the newest `window` running runs with id < `before`: returns the lowest id of them, and those of them in which a node has
-- failed and others wait for an operator, among the first `reach` joins of a run.
-- Plan: workflow_state_idx backwards up to the window; workflow_join_workflow_idx for each run.
WITH seen AS (
    SELECT run.id, run.name, run.on_failure FROM {schema}.workflow AS run
    WHERE run.state = 'running' AND run.id < %(before)s::bigint
    ORDER BY run.id DESC LIMIT %(window)s
)
SELECT (SELECT min(id) FROM seen) AS floor,
       ARRAY(
           SELECT seen.id FROM seen
           WHERE seen.on_failure = 'hold' AND (%(name)s::text IS NULL OR seen.name = %(name)s::text)
             AND EXISTS (
                 SELECT FROM (SELECT remaining, released_at, failed, tolerated FROM {schema}.workflow_join
                              WHERE workflow_id = seen.id LIMIT %(reach)s) AS parents
                 WHERE parents.remaining = 0 AND parents.released_at IS NULL AND parents.failed > parents.tolerated)
           ORDER BY seen.id DESC) AS ids
