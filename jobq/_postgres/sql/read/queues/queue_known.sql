-- Returns whether a queue has a row, live jobs, a worker that serves it by name, or a job among the
-- newest 10,000 finished ones.
-- ORDER BY … LIMIT 1, not EXISTS: for EXISTS, the planner scans the whole table when it expects
-- many matches.
-- Plan: queue_pkey, job_claim_idx, job_running_idx, then bounded reads from the end of job_pkey and job_history_id_idx.
SELECT EXISTS (SELECT FROM {schema}.queue WHERE name = %(queue)s)
    OR (SELECT id FROM {schema}.job WHERE state = 'ready' AND queue = %(queue)s
        ORDER BY priority, run_at, id LIMIT 1) IS NOT NULL
    OR (SELECT id FROM {schema}.job WHERE state = 'running' AND queue = %(queue)s
        ORDER BY worker_id LIMIT 1) IS NOT NULL
    OR EXISTS (SELECT FROM {schema}.worker WHERE %(queue)s = ANY(queues))
    OR EXISTS (SELECT FROM (SELECT queue FROM {schema}.job ORDER BY id DESC LIMIT 10000) AS entry
               WHERE entry.queue = %(queue)s)
    OR EXISTS (SELECT FROM (SELECT queue FROM {schema}.job_history ORDER BY id DESC LIMIT 10000) AS entry
               WHERE entry.queue = %(queue)s) AS known
