-- For other languages, triggers and psql: inserts one job and returns its id, or the id of the job that holds the key
-- (NULL when a REPEATABLE READ snapshot cannot see that one). Arguments are an object by parameter name; whether they fit
-- the task is checked by the worker before the run.
CREATE OR REPLACE FUNCTION {schema}.enqueue(
    task text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', priority integer DEFAULT 5,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, key text DEFAULT NULL, key_holds text DEFAULT 'period',
    key_period interval DEFAULT '7 days', on_conflict text DEFAULT 'return', max_attempts integer DEFAULT 10,
    timeout interval DEFAULT NULL, headers jsonb DEFAULT '{}', group_key text DEFAULT NULL,
    expires_in interval DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
    entry record;
BEGIN
    IF on_conflict NOT IN ('return', 'replace', 'raise') THEN
        RAISE EXCEPTION 'on_conflict => %: give return, replace or raise', quote_literal(on_conflict)
            USING ERRCODE = '22023';
    END IF;
    IF delay < interval '0' THEN
        RAISE EXCEPTION 'delay => %: give an interval of 0 or more', delay USING ERRCODE = '22023';
    END IF;
    IF run_at IS NOT NULL AND delay IS NOT NULL THEN
        RAISE EXCEPTION 'give run_at or delay, not both' USING ERRCODE = '22023';
    END IF;
    IF expires_in <= coalesce(delay, interval '0') THEN
        RAISE EXCEPTION 'expires_in => %: give an interval above 0, and above delay: it would expire before it is due', expires_in
            USING ERRCODE = '22023';
    END IF;
    entry := {schema}.enqueue_one(
        task, args, queue, priority, run_at, extract(epoch FROM delay)::double precision, max_attempts,
        extract(epoch FROM timeout)::double precision, headers, key, key_holds,
        extract(epoch FROM key_period)::double precision, on_conflict, group_key,
        extract(epoch FROM expires_in)::double precision);
    IF on_conflict = 'raise' AND NOT entry.created THEN
        RAISE EXCEPTION 'key % is held by job %', quote_literal(key), entry.job_id USING ERRCODE = 'unique_violation';
    END IF;
    RETURN entry.job_id;
END
$body$;
