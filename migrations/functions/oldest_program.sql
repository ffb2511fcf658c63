-- Returns the oldest revision whose programs (workers, clients, the page) work with the schema at this revision; NULL: not known.
-- A worker that meets a schema newer than itself asks it: it goes on, or waits for its replacement (_worker/compatibility.py). Each
-- new revision adds itself here, and says from which on.
CREATE OR REPLACE FUNCTION {schema}.oldest_program(at_revision text) RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT CASE WHEN at_revision = '0009' THEN '0009' END
$body$;
