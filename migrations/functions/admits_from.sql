-- Returns the time from which one more job may start.
CREATE OR REPLACE FUNCTION {schema}.admits_from(jobs integer, seconds double precision, burst integer, paid timestamptz)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE
AS $body$
    SELECT paid + (least(0.05, (burst - 1) * seconds / jobs / 2) - (burst - 1) * seconds / jobs) * interval '1 second'
$body$;
