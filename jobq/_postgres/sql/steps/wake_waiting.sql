-- Makes durable jobs due for which something may have happened: a signal that their step waits for, or the end of a child. It takes
-- rows of job_wakeup, at most %(most)s at a time, and deletes them. What another transaction has locked is skipped; if it is the job,
-- its row stays.
-- A job that is not put back yet is left alone: the transaction that puts it back writes a row of its own.
-- Returns the number of rows taken, of jobs that are due now, and the rows that stay.
-- Plan: Index Scan using job_wakeup_pkey, job_step_pkey, job_pkey; no Seq Scan on job or job_step.
WITH turns AS MATERIALIZED (
    SELECT id, job_id, workflow_id FROM {schema}.job_wakeup
    WHERE id <> ALL (%(left_out)s::bigint[]) AND (%(only)s::bigint[] IS NULL OR id = ANY (%(only)s::bigint[]))
    ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), waiting AS MATERIALIZED (
    SELECT DISTINCT turns.id AS turn, step.job_id
    FROM turns CROSS JOIN LATERAL (
        SELECT one.job_id, one.kind, one.name, one.child_id, one.workflow_id FROM {schema}.job_step AS one
        WHERE one.job_id = turns.job_id AND one.kind IN ('signal', 'child') AND one.state = 'waiting' AND strpos(one.args_hash, '/') = 0
        UNION ALL
        SELECT one.job_id, one.kind, one.name, one.child_id, one.workflow_id FROM {schema}.job_step AS one
        WHERE one.workflow_id = turns.workflow_id AND one.state = 'waiting' AND strpos(one.args_hash, '/') = 0
    ) AS step
    -- OFFSET 0: a plan must not read all signals, or all runs, to look for these in a hash table.
    WHERE CASE step.kind
          WHEN 'child' THEN NOT EXISTS (SELECT FROM {schema}.workflow AS run WHERE run.id = step.child_id AND run.state = 'running' OFFSET 0)
          ELSE EXISTS (SELECT FROM {schema}.job_signal AS signal
                       WHERE signal.job_id = step.job_id AND signal.name = step.name AND signal.taken_at IS NULL OFFSET 0)
               OR EXISTS (SELECT FROM {schema}.job_signal AS signal
                          WHERE signal.workflow_id = step.workflow_id AND signal.name = step.name AND signal.taken_at IS NULL OFFSET 0)
          END
), idle AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job
    WHERE job.id = ANY (ARRAY(SELECT job_id FROM waiting)) AND job.state IN ('ready', 'waiting') AND job.run_at > clock_timestamp()
), free AS MATERIALIZED (
    SELECT job.id FROM {schema}.job AS job WHERE job.id = ANY (ARRAY(SELECT id FROM idle)) ORDER BY job.id FOR NO KEY UPDATE SKIP LOCKED
), woken AS (
    UPDATE {schema}.job SET run_at = clock_timestamp()
    WHERE id = ANY (ARRAY(SELECT id FROM free)) AND state IN ('ready', 'waiting') AND run_at > clock_timestamp()
    RETURNING id, queue, state, group_key
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, clock_timestamp() FROM woken WHERE state = 'waiting'
), taken AS (
    DELETE FROM {schema}.job_wakeup
    WHERE id = ANY (ARRAY(SELECT id FROM turns))
      AND id <> ALL (ARRAY(SELECT turn FROM waiting WHERE job_id IN (SELECT id FROM idle EXCEPT SELECT id FROM free)))
    RETURNING id
), told AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM woken) AS fresh
)
SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM woken), ARRAY(SELECT id FROM turns EXCEPT SELECT id FROM taken)
WHERE (SELECT count(*) FROM told) >= 0
