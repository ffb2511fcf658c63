-- Returns sizes, estimated rows and vacuums of jobq's tables. Partitions are summed by state and
-- for attempts.
-- Plan: catalogues only; a call of pg_relation_size for each table and index.
WITH part AS (
    SELECT class.oid, class.relname, class.reltuples, class.reltoastrelid,
           CASE WHEN class.relname ~ '^job_(history_[a-z]+|attempt)_([0-9]{{8}}|rest)$'
                THEN substring(class.relname FROM '^(.*)_[^_]+$') ELSE class.relname END AS name
    FROM pg_class AS class
    JOIN pg_namespace AS home ON home.oid = class.relnamespace
    WHERE home.nspname = %(schema)s AND class.relkind = 'r'
)
SELECT part.name, count(*)::integer AS partitions,
       -- -1: never analysed.
       greatest(sum(CASE WHEN part.reltuples >= 0 THEN part.reltuples ELSE coalesce(activity.n_live_tup, 0) END), 0)::bigint AS rows,
       sum(activity.n_dead_tup)::bigint AS dead,
       sum(pg_relation_size(part.oid))::bigint AS heap, sum(pg_indexes_size(part.oid))::bigint AS indexes,
       sum(CASE WHEN part.reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(part.reltoastrelid) END)::bigint AS toast,
       max(greatest(activity.last_vacuum, activity.last_autovacuum)) AS vacuumed_at,
       max(greatest(activity.last_analyze, activity.last_autoanalyze)) AS analyzed_at
FROM part
LEFT JOIN pg_stat_all_tables AS activity ON activity.relid = part.oid
GROUP BY part.name
ORDER BY sum(pg_relation_size(part.oid)) + sum(pg_indexes_size(part.oid)) DESC, part.name
LIMIT 100
