-- Drops the daily partitions of `parent` of which every row finished more than `keep` ago; returns their names.
-- The short lock_timeout keeps acknowledgements from queueing behind a drop that must wait: the chore comes again.
CREATE OR REPLACE FUNCTION {schema}.drop_partitions(parent text, keep interval) RETURNS SETOF text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $body$
DECLARE
    part text;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'drop_partitions: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    FOR part IN
        SELECT child.relname
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
        WHERE pg_inherits.inhparent = to_regclass(format('%I.%I', {schema_literal}, parent))
          AND child.relname ~ ('^' || parent || '_[0-9]{8}$')
          AND (to_date(right(child.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= now() - keep
        ORDER BY child.relname
    LOOP
        EXECUTE format('DROP TABLE %I.%I', {schema_literal}, part);
        RETURN NEXT part;
    END LOOP;
END
$body$;
