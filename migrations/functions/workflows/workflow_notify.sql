-- Wakes the workers' loop for workflows, under the same conditions as functions/notify_insert.sql. While it stays silent, the loops look
-- often (_worker/workflows/loop.py).
CREATE OR REPLACE FUNCTION {schema}.workflow_notify() RETURNS void
LANGUAGE plpgsql
AS $body$
BEGIN
    IF (SELECT last_value FROM {schema}.notify_mode) <> 2 AND coalesce(current_setting('jobq.notify', true), '') <> 'off' THEN
        PERFORM pg_notify({schema_literal}, 'workflow');
    END IF;
END
$body$;
