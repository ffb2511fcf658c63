-- Takes the key of a job that returns to life: one put back from history, or one whose start did not come. Returns the id of the
-- job that has the key then: this one's when it was free, expired or still this one's; NULL when that cannot be known at once,
-- because a transaction that is still open has it. Waits for 50 ms at most, so that two calls with keys in other orders never
-- deadlock, and no caller's open transaction holds up a worker.
-- A period that is over is not begun again: the job goes without the key, and its own id is returned.
-- `task` and `scope` say where the key is held: by the job's task, or by all tasks (scope 'global').
-- SECURITY DEFINER: neither worker nor operator may write keys otherwise.
CREATE OR REPLACE FUNCTION {schema}.take_key(
    key text, job_id bigint, holds text, task text DEFAULT NULL, scope text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $body$
#variable_conflict use_column
DECLARE
    holder bigint;
    shared constant boolean := coalesce(take_key.scope = 'global', false);
    space constant text := CASE WHEN shared THEN '' ELSE take_key.task END;
BEGIN
    IF take_key.holds = 'period' THEN
        SELECT taken.job_id INTO holder FROM {schema}.job_key AS taken
        WHERE taken.key = take_key.key AND taken.scope = space AND (taken.expires_at IS NULL OR taken.expires_at > clock_timestamp());
        RETURN coalesce(holder, take_key.job_id);
    END IF;
    FOR n IN 1..3 LOOP
        INSERT INTO {schema}.job_key AS taken (key, scope, task, job_id, holds)
        VALUES (take_key.key, space, CASE WHEN shared THEN take_key.task END, take_key.job_id, take_key.holds)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN take_key.job_id;
        END IF;
        SELECT taken.job_id INTO holder FROM {schema}.job_key AS taken
        WHERE taken.key = take_key.key AND taken.scope = space AND (taken.expires_at IS NULL OR taken.expires_at > clock_timestamp());
        IF FOUND THEN
            RETURN holder;
        END IF;
        DELETE FROM {schema}.job_key AS taken WHERE taken.key = take_key.key AND taken.scope = space AND taken.expires_at <= clock_timestamp();
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN lock_not_available OR serialization_failure OR deadlock_detected THEN
    RETURN NULL;
END
$body$;
