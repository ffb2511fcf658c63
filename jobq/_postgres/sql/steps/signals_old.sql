-- For retention: reads the next signals in the order in which they were sent, behind (%(after)s, %(after_id)s), up to those sent %(keep)s
-- ago. Returns the ids of those whose target is gone, except those `aside`: the job is neither live nor in history, and is no node that
-- may still begin; or the workflow's run is gone. Returns how many were read, and the place of the last one.
-- Plan: Index Scan using job_signal_age_idx; job_pkey, workflow_node_pkey, workflow_pkey; job_history_id_idx of each partition. No Seq Scan.
WITH part AS MATERIALIZED (
    SELECT signal.sent_at, signal.id, signal.job_id, signal.workflow_id FROM {schema}.job_signal AS signal
    WHERE (signal.sent_at, signal.id) > (%(after)s::timestamptz, %(after_id)s::bigint)
      AND signal.sent_at < now() - %(keep)s::interval
    ORDER BY signal.sent_at, signal.id LIMIT %(most)s
), ended AS MATERIALIZED (
    SELECT part.id, part.job_id FROM part
    WHERE part.id <> ALL (%(aside)s::bigint[])
      AND CASE WHEN part.job_id IS NULL
               THEN NOT EXISTS (SELECT FROM {schema}.workflow AS run WHERE run.id = part.workflow_id OFFSET 0)
               ELSE NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = part.job_id OFFSET 0)
                    AND NOT EXISTS (SELECT FROM {schema}.workflow_node AS node WHERE node.id = part.job_id OFFSET 0) END
), kept AS MATERIALIZED (
    SELECT id FROM {schema}.job_history WHERE id = ANY (ARRAY(SELECT job_id FROM ended WHERE job_id IS NOT NULL))
)
SELECT ARRAY(SELECT ended.id FROM ended WHERE ended.job_id IS NULL OR ended.job_id <> ALL (ARRAY(SELECT id FROM kept)) ORDER BY ended.id),
       (SELECT count(*) FROM part),
       (SELECT sent_at::text FROM part ORDER BY sent_at DESC, id DESC LIMIT 1),
       (SELECT id FROM part ORDER BY sent_at DESC, id DESC LIMIT 1)
