-- Returns the number of finished jobs of each state, as the planner knows it: from the last VACUUM
-- or ANALYZE of each partition, or, if it never had one, from the server's count of inserted rows.
-- Plan: catalogues only.
SELECT substr(parent.relname, length('job_history_') + 1) AS state,
       sum(CASE WHEN part.reltuples >= 0 AND part.relpages > 0
                THEN part.reltuples * greatest(pg_relation_size(part.oid) / current_setting('block_size')::integer, 1) / part.relpages
                ELSE coalesce(pg_stat_get_live_tuples(part.oid), 0) END)::bigint AS number
FROM pg_class AS parent
JOIN pg_namespace AS home ON home.oid = parent.relnamespace
JOIN pg_inherits AS link ON link.inhparent = parent.oid
JOIN pg_class AS part ON part.oid = link.inhrelid
WHERE home.nspname = %(schema)s
  AND parent.relname IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired')
GROUP BY parent.relname
