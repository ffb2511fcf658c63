-- A job with a group, in a queue that says how its groups run, begins as `waiting`: no claim index leads to it. Its group gets a
-- turn, which commits with it. Jobs that come one after the other in a transaction share one turn, for all of them are seen
-- when it is; those for later have one each. A turn says from which id and run_at on it stands for jobs (jobq/_postgres/tables/limits.py): one
-- with a lower id, or a run_at before the transaction began, has a turn of its own.
-- SECURITY DEFINER: a producer needs no more than INSERT on the table of jobs.
CREATE OR REPLACE FUNCTION {schema}.enter_group() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    -- No two groups have the same: not of two queues, nor of two schemas that one transaction inserts into.
    mark constant text := concat_ws(' ', TG_RELID, length(NEW.queue), NEW.queue, NEW.group_key);
BEGIN
    IF length(NEW.group_key) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'group_key => %: give 1 to 200 characters', quote_literal(left(NEW.group_key, 250))
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'group_key';
    END IF;
    IF NEW.state <> 'ready'
       OR NOT EXISTS (SELECT FROM {schema}.queue WHERE name = NEW.queue AND group_mode IS NOT NULL) THEN
        RETURN NEW;
    END IF;
    NEW.state := 'waiting';
    IF NEW.run_at > clock_timestamp() THEN
        INSERT INTO {schema}.group_ready (queue, group_key, due_at, from_id, from_at)
        VALUES (NEW.queue, NEW.group_key, NEW.run_at, NEW.id, NEW.run_at);
        PERFORM set_config('jobq.turn', 'later', true);
    ELSIF current_setting('jobq.turn', true) IS DISTINCT FROM mark OR NEW.run_at < now()
          OR NEW.id < nullif(current_setting('jobq.turn_from', true), '')::bigint THEN
        INSERT INTO {schema}.group_ready (queue, group_key, from_id, from_at)
        VALUES (NEW.queue, NEW.group_key, NEW.id, least(NEW.run_at, now()));
        PERFORM set_config('jobq.turn', mark, true), set_config('jobq.turn_from', NEW.id::text, true);
    END IF;
    RETURN NEW;
END
$body$;
