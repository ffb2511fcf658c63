-- The state in which a job that can run again stands in this queue.
CREATE OR REPLACE FUNCTION {schema}.entry_state(of_queue text, of_group text) RETURNS text
LANGUAGE sql
STABLE
AS $body$
    SELECT CASE WHEN of_group IS NOT NULL
                 AND EXISTS (SELECT FROM {schema}.queue WHERE name = of_queue AND group_mode IS NOT NULL)
                THEN 'waiting' ELSE 'ready' END
$body$;
