-- Returns names of tasks as suggestions: tasks that live workers know, that finished in the last
-- day, and of the newest jobs.
-- Plan: the worker table, a range of rollup_task_pkey, the ends of job_pkey and of each partition's job_history_id_idx.
SELECT DISTINCT task FROM (
    SELECT unnest(tasks) AS task FROM {schema}.worker
    UNION ALL
    (SELECT task FROM {schema}.rollup_task
     WHERE span = 3600 AND at > now() - interval '1 day'
     ORDER BY at DESC
     LIMIT 5000)
    UNION ALL
    (SELECT task FROM {schema}.job ORDER BY id DESC LIMIT 200)
    UNION ALL
    (SELECT task FROM {schema}.job_history ORDER BY id DESC LIMIT 200)
) AS seen
WHERE task IS NOT NULL
ORDER BY task
LIMIT 2000
