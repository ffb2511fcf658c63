-- Makes the daily partitions from yesterday up to `days_ahead` days from now, and returns the names of those it made. Each table and
-- day by itself: what one refuses is told as a warning, and the others are made. Workers call make_partition for each instead, in a transaction of its own: this one keeps its locks to its end.
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
    FOR day IN
        SELECT (now() AT TIME ZONE 'UTC')::date + step FROM generate_series(-1, days_ahead) AS step ORDER BY step < 0, step
    LOOP
        FOREACH parent IN ARRAY ARRAY['job_history_succeeded', 'job_history_failed', 'job_history_cancelled',
                                      'job_history_expired', 'job_attempt'] LOOP
            BEGIN
                part := {schema}.make_partition(parent, day);
                IF part IS NOT NULL THEN
                    RETURN NEXT part;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING '%', format('no partition of %s for %s: %s', parent, day, SQLERRM);
            END;
        END LOOP;
    END LOOP;
END
$body$;
