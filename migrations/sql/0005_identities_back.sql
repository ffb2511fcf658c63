-- The replica identities as revision 0004 had them: a table's primary key, where there is one.
DO $do$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT to_regclass(format('%I.job_turn', {schema_literal}::text))
        UNION ALL
        SELECT tree.relid FROM pg_partition_tree(to_regclass(format('%I.job_history', {schema_literal}::text))) AS tree
        UNION ALL
        SELECT tree.relid FROM pg_partition_tree(to_regclass(format('%I.job_attempt', {schema_literal}::text))) AS tree
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', part);
    END LOOP;
END
$do$;
