-- Returns the size of the index that claims read, and its number of entries at the last VACUUM or
-- ANALYZE.
-- Plan: catalogues only.
SELECT class.relname AS name, pg_relation_size(class.oid) AS size, greatest(class.reltuples, 0)::bigint AS entries
FROM pg_class AS class
JOIN pg_namespace AS home ON home.oid = class.relnamespace
WHERE home.nspname = %(schema)s AND class.relname = 'job_claim_idx'
