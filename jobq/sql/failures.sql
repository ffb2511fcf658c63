-- The newest dead letters, with as much of their errors as tells them apart (jobq/failures.py).
-- Plan: the newest entries of the failed partitions' job_history_id_idx, merged.
SELECT id, task, queue, "left"(error, 300) AS error, finished_at
FROM {schema}.job_history
WHERE state = 'failed'
ORDER BY id DESC
LIMIT %(reach)s
