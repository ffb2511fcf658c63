-- As in 0001, and of jobs that wait for their group's turn in the brisk mode as well: the sentinel, which looks at the heads of
-- lanes, does not see them. Plain jobs in the brisk mode cost what they did.
-- With the setting jobq.notify off there is no message at all: a transaction that has sent one cannot be prepared for a two-phase
-- commit. Such jobs are found when workers look of themselves.
-- Above 100 queues in one statement the workers get one message, `many`, and look for themselves: the server keeps equal messages of
-- a transaction once.
CREATE OR REPLACE FUNCTION {schema}.notify_insert() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF ((SELECT last_value FROM {schema}.wake) <> 2 OR coalesce(current_setting('jobq.turn', true), '') <> '')
       AND coalesce(current_setting('jobq.notify', true), '') <> 'off' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, CASE WHEN count(*) OVER () > 100 THEN 'many' ELSE 'insert ' || fresh.queue END)
        FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state IN ('ready', 'waiting') LIMIT 101) AS fresh;
    END IF;
    RETURN NULL;
END
$body$;
