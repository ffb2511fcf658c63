-- Returns how many pages hold the succeeded jobs that finished before the end of a day (NULL: all).
-- These jobs have no index by finish time, because every acknowledgement would pay for it: sorting
-- them reads this many pages.
-- Plan: catalogues only.
SELECT coalesce(sum(pg_relation_size(part.oid) / current_setting('block_size')::integer), 0)::bigint AS pages
FROM pg_class AS parent
JOIN pg_namespace AS home ON home.oid = parent.relnamespace
JOIN pg_inherits AS link ON link.inhparent = parent.oid
JOIN pg_class AS part ON part.oid = link.inhrelid
WHERE home.nspname = %(schema)s AND parent.relname = 'job_history_succeeded' AND part.relkind = 'r'
  AND (%(day)s::text IS NULL OR part.relname <= parent.relname || '_' || %(day)s OR part.relname = parent.relname || '_rest')
