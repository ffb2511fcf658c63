-- Wakes the workers when jobs are committed: one message per queue and statement, on the channel named like the schema.
-- A hint only: a poll stands behind it.
CREATE FUNCTION {schema}.notify_insert() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA, 'insert ' || fresh.queue)
    FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state = 'ready') AS fresh;
    RETURN NULL;
END
$body$;

CREATE TRIGGER job_notify_insert AFTER INSERT ON {schema}.job
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.notify_insert();
