-- Drops the daily partitions of `parent` whose rows all finished more than `keep` ago, the oldest first and at most `most`; returns their names. Each by itself: one that is in use is told as a warning and left for the next time.
-- The short lock_timeout keeps acknowledgements from queueing behind a drop that must wait: the maintenance task comes again.
CREATE OR REPLACE FUNCTION {schema}.drop_partitions(parent text, keep interval, most integer DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $body$
DECLARE
    part text;
    dropped integer := 0;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'drop_partitions: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'drop_partitions: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
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
        BEGIN
            EXECUTE format('DROP TABLE %I.%I', {schema_literal}, part);
            dropped := dropped + 1;
            RETURN NEXT part;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING '%', format('%s is not dropped: %s', part, SQLERRM);
        END;
        EXIT WHEN dropped >= most;
    END LOOP;
END
$body$;
