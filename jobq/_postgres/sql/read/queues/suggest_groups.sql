-- Returns recent groups of the newest live jobs, as suggestions.
-- Plan: the end of job_pkey.
SELECT entry.group_key AS "group"
FROM (SELECT group_key FROM {schema}.job ORDER BY id DESC LIMIT 2000) AS entry
WHERE entry.group_key IS NOT NULL
GROUP BY entry.group_key
ORDER BY count(*) DESC, entry.group_key
LIMIT 200
