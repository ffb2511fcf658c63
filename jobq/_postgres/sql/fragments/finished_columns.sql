-- The columns that the CTE `finished` returns for each job that it deletes: columns that history
-- keeps unchanged, and columns that the job's group and queue need. The statement adds the columns
-- that its kind of ending sets:
--   attempt, crashes, worker_id, started_at: mostly the job's own;
--   state: the one that the job ends in; finished_at; result (jsonb) and error (text), or NULLs of these types.
job.id, job.claims, job.max_attempts, job.priority, job.queue, job.task, job.run_at, job.created_at, job.timeout, job.key,
job.key_holds, job.key_scope, job.group_key, job.args, job.headers, job.limited, job.node_id, job.node_item
