-- How many pages the succeeded jobs take that finished before a day ends (NULL: all). They have no index by their end, which every
-- acknowledgement would pay for: so many pages are read to sort them.
-- Plan: catalogues only.
SELECT coalesce(sum(pg_relation_size(part.oid) / current_setting('block_size')::integer), 0)::bigint AS pages
FROM pg_class AS parent
JOIN pg_namespace AS home ON home.oid = parent.relnamespace
JOIN pg_inherits AS link ON link.inhparent = parent.oid
JOIN pg_class AS part ON part.oid = link.inhrelid
WHERE home.nspname = %(schema)s AND parent.relname = 'job_history_succeeded' AND part.relkind = 'r'
  AND (%(day)s::text IS NULL OR part.relname <= parent.relname || '_' || %(day)s OR part.relname = parent.relname || '_rest')
