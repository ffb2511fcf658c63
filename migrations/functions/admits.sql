-- Rates, by the generic cell rate algorithm: each start is paid for with its share of time, up to a burst ahead; `paid` is up to
-- when all is paid for. So there are at most burst + rate x w starts in any time w. A job starts some milliseconds after its
-- claim, and not always as many: so but for what a full bucket gives at once, a margin is kept of up to 50 ms.
-- How many may start at `moment`; NULL without a rate.
CREATE OR REPLACE FUNCTION {schema}.admits(jobs integer, seconds double precision, burst integer, paid timestamptz, moment timestamptz)
RETURNS integer
LANGUAGE sql
IMMUTABLE
AS $body$
    SELECT CASE WHEN jobs IS NULL THEN NULL
                WHEN paid <= moment THEN burst
                ELSE floor((burst * seconds / jobs - extract(epoch FROM paid - moment)::double precision
                            - least(0.05, (burst - 1) * seconds / jobs / 2)) / (seconds / jobs) + 1e-6)::integer END
$body$;
