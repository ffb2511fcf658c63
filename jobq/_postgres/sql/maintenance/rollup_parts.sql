-- Returns the partitions with jobs that finished in a stretch of days, with their current sizes in
-- pages and their sizes before the stretch began (0: unknown, read from the start). A day's rows
-- are in that day's partition, or in `_rest` if it has none.
-- Plan: catalogues only, and the few rows of rollup_mark.
SELECT parent.relname || coalesce(part.suffix, '_rest') AS name,
       substr(parent.relname, length('job_history_') + 1) AS state,
       day.at AS day,
       (pg_relation_size(part.oid) / current_setting('block_size')::integer)::bigint AS pages,
       coalesce((SELECT mark.pages FROM {schema}.rollup_mark AS mark
                 WHERE mark.part = parent.relname || part.suffix AND mark.at <= %(since)s::timestamptz
                 ORDER BY mark.at DESC LIMIT 1), 0) AS before,
       clock_timestamp() AS at
FROM pg_class AS parent
JOIN pg_namespace AS home ON home.oid = parent.relnamespace
CROSS JOIN generate_series(
    date_bin('1 day', %(since)s::timestamptz, 'epoch'), %(until)s::timestamptz, interval '24 hours') AS day (at)
CROSS JOIN LATERAL (
    SELECT child.oid, substr(child.relname, length(parent.relname) + 1) AS suffix
    FROM pg_inherits AS link
    JOIN pg_class AS child ON child.oid = link.inhrelid
    WHERE link.inhparent = parent.oid
      AND child.relname IN (parent.relname || '_rest',
                            parent.relname || '_' || to_char(day.at AT TIME ZONE 'UTC', 'YYYYMMDD'))
    ORDER BY child.relname = parent.relname || '_rest'
    LIMIT 1
) AS part
WHERE home.nspname = %(schema)s
  AND parent.relname IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired')
ORDER BY 1, 3
