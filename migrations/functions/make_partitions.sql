-- Makes the daily partitions from yesterday up to `days_ahead` days from now, and returns the names of those it made.
-- CREATE … LIKE and ATTACH, since CREATE … PARTITION OF would lock the parent against every acknowledgement.
-- SECURITY DEFINER: the worker's role owns no table.
CREATE OR REPLACE FUNCTION {schema}.make_partitions(days_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
AS $body$
DECLARE
    parent text;
    day date;
    part text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['job_history_succeeded', 'job_history_failed', 'job_history_cancelled',
                                  'job_history_expired', 'job_attempt'] LOOP
        FOR step IN -1 .. days_ahead LOOP
            day := (now() AT TIME ZONE 'UTC')::date + step;
            part := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(format('%I.%I', {schema_literal}, part)) IS NOT NULL;
            EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           {schema_literal}, part, parent);
            EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                           {schema_literal}, parent, part,
                           day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            RETURN NEXT part;
        END LOOP;
    END LOOP;
END
$body$;
