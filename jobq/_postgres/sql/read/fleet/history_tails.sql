-- Returns the day partitions with jobs that finished within the last hour, and their sizes in
-- pages.
-- Plan: catalogues only.
SELECT part.relname AS name, substr(parent.relname, length('job_history_') + 1) AS state,
       (pg_relation_size(part.oid) / current_setting('block_size')::integer)::bigint AS pages
FROM pg_class AS parent
JOIN pg_namespace AS home ON home.oid = parent.relnamespace
JOIN pg_inherits AS link ON link.inhparent = parent.oid
JOIN pg_class AS part ON part.oid = link.inhrelid
WHERE home.nspname = %(schema)s
  AND parent.relname IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired')
  AND part.relkind = 'r'
  AND part.relname IN (
      parent.relname || '_rest',
      parent.relname || '_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'),
      parent.relname || '_' || to_char((now() - interval '1 hour') AT TIME ZONE 'UTC', 'YYYYMMDD')
  )
ORDER BY part.relname
