-- Returns what holds the vacuum horizon back, oldest first. A role without pg_read_all_stats sees
-- nothing of other users' sessions.
-- Plan: shared memory only.
SELECT *
FROM (
    SELECT 'session' AS kind,
           concat_ws(' ', 'process ' || pid, usename, nullif(application_name, '')) AS name,
           greatest(age(backend_xmin), age(backend_xid)) AS age,
           greatest(extract(epoch FROM clock_timestamp() - xact_start), 0)::double precision AS seconds,
           coalesce(state, backend_type) AS state, "left"(query, 200) AS query,
           format('SELECT pg_terminate_backend(%%s)', pid) AS fix
    FROM pg_stat_activity
    WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
    UNION ALL
    SELECT 'prepared transaction', gid, age(transaction),
           greatest(extract(epoch FROM clock_timestamp() - prepared), 0)::double precision, NULL, NULL,
           format('ROLLBACK PREPARED %%L', gid)
    FROM pg_prepared_xacts
    UNION ALL
    SELECT 'replication slot', slot_name, greatest(age(xmin), age(catalog_xmin)), NULL,
           CASE WHEN active THEN 'active' ELSE 'not used' END, NULL, format('SELECT pg_drop_replication_slot(%%L)', slot_name)
    FROM pg_replication_slots
    WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
) AS holder
ORDER BY age DESC, seconds DESC NULLS LAST, name
LIMIT 20
