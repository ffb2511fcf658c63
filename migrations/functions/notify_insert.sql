-- Wakes the workers when jobs are committed: one message per queue and statement, on the channel named like the schema.
-- A hint only: a poll stands behind it.
-- NOTIFY makes the commits of a whole cluster queue up, so that there is none while jobs come thick and fast. The mode must
-- be read after the INSERT, as it is here: then the producer has its transaction id before it reads, and so a lead poller that
-- changes the mode and waits for every older transaction to end has waited for all who can have read the mode before.
-- In the mode POLL it still tells of jobs that wait for their group's turn: the lead poller, which looks at the heads of lanes, does
-- not see them.
-- With the setting jobq.notify off there is no message at all: a transaction that has sent one cannot be prepared for a two-phase
-- commit. Such jobs are found when workers look of themselves.
-- Above 100 queues in one statement the workers get one message, `many`, and look for themselves: the server keeps equal messages of
-- a transaction once.
-- SECURITY DEFINER: a producer needs no more than INSERT on the table.
CREATE OR REPLACE FUNCTION {schema}.notify_insert() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF ((SELECT last_value FROM {schema}.notify_mode) <> 2 OR coalesce(current_setting('jobq.turn', true), '') <> '')
       AND coalesce(current_setting('jobq.notify', true), '') <> 'off' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, CASE WHEN count(*) OVER () > 100 THEN 'many' ELSE 'insert ' || fresh.queue END)
        FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state IN ('ready', 'waiting') LIMIT 101) AS fresh;
    END IF;
    RETURN NULL;
END
$body$;
