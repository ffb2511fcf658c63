-- Returns names of arguments of the newest jobs, the most frequent first.
-- Plan: the ends of job_pkey and of each partition's job_history_id_idx.
SELECT name FROM (
    (SELECT args FROM {schema}.job ORDER BY id DESC LIMIT 50)
    UNION ALL
    (SELECT args FROM {schema}.job_history ORDER BY id DESC LIMIT 50)
) AS newest
CROSS JOIN LATERAL jsonb_object_keys(CASE WHEN pg_column_size(args) <= 2000 THEN args ELSE '{{}}' END) AS name
GROUP BY name
ORDER BY count(*) DESC, name
LIMIT 100
