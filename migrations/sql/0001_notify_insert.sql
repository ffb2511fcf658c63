-- How workers learn of new jobs: 1 quiet, the trigger notifies; 2 brisk, it is silent and one worker, the sentinel, polls for
-- all; 3 settling, it notifies again while the sentinel waits for those who may have read 2. A sequence, as its value is read
-- outside MVCC: a producer sees it as it is now, in whatever snapshot it works. jobq/worker/sentinel.py has the protocol.
CREATE SEQUENCE {schema}.wake AS smallint MINVALUE 1 MAXVALUE 3 START 1 CACHE 1;

-- Wakes the workers when jobs are committed: one message per queue and statement, on the channel named like the schema.
-- A hint only: a poll stands behind it.
-- NOTIFY makes the commits of a whole cluster queue up, so that there is none while jobs come thick and fast. The mode must
-- be read after the INSERT, as it is here: then the producer has its transaction id before it reads, and so a sentinel that
-- changes the mode and waits for every older transaction to end has waited for all who can have read the mode before.
-- SECURITY DEFINER: a producer needs no more than INSERT on the table.
CREATE FUNCTION {schema}.notify_insert() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF (SELECT last_value FROM {schema}.wake) <> 2 THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, 'insert ' || fresh.queue)
        FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state = 'ready') AS fresh;
    END IF;
    RETURN NULL;
END
$body$;

CREATE TRIGGER job_notify_insert AFTER INSERT ON {schema}.job
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.notify_insert();
