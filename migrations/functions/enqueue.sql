-- For other languages, triggers and psql: inserts one job and returns its id, or the id of the job that holds the key
-- (NULL when a REPEATABLE READ snapshot cannot see that one). A key is the task's own, unless key_scope is 'global': then it is one
-- for all tasks, and another task's holder is an error whatever on_conflict. Arguments are an object by parameter name; whether they fit
-- the task is checked by the worker before the run.
CREATE OR REPLACE FUNCTION {schema}.enqueue(
    task text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', priority integer DEFAULT 5,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, key text DEFAULT NULL, key_holds text DEFAULT 'period',
    key_period interval DEFAULT '7 days', on_conflict text DEFAULT 'return', max_attempts integer DEFAULT 10,
    timeout interval DEFAULT NULL, headers jsonb DEFAULT '{}', group_key text DEFAULT NULL,
    expires_in interval DEFAULT NULL, key_scope text DEFAULT 'task'
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
    -- Seconds in 100 years: as much as every client can read.
    longest constant double precision := 3155760000;
    problem text;
    entry record;
BEGIN
    -- What the table's constraints would refuse as well is refused by them, with their names.
    problem := CASE
        WHEN key_holds IS NULL OR key_holds NOT IN ('period', 'until_finished', 'until_started')
            THEN format('key_holds => %s: give period, until_finished or until_started', quote_nullable(key_holds))
        WHEN key_scope IS NULL OR key_scope NOT IN ('task', 'global')
            THEN format('key_scope => %s: give task or global', quote_nullable(key_scope))
        WHEN on_conflict IS NULL OR on_conflict NOT IN ('return', 'replace', 'raise')
            THEN format('on_conflict => %s: give return, replace or raise', quote_nullable(on_conflict))
        WHEN NOT coalesce(extract(epoch FROM key_period) > 0 AND extract(epoch FROM key_period) <= longest, false)
            THEN format('key_period => %s: give an interval above 0, of at most 100 years', key_period)
        WHEN NOT (extract(epoch FROM timeout) > 0 AND extract(epoch FROM timeout) <= longest)
            THEN format('timeout => %s: give an interval above 0, of at most 100 years', timeout)
        WHEN NOT (extract(epoch FROM delay) >= 0 AND extract(epoch FROM delay) <= longest)
            THEN format('delay => %s: give an interval of 0 or more, and at most 100 years', delay)
        WHEN run_at IS NOT NULL AND delay IS NOT NULL THEN 'give run_at or delay, not both'
        WHEN run_at >= '9999-01-01 00:00:00+00' THEN format('run_at => %s: give a time before the year 9999', run_at)
        WHEN NOT (extract(epoch FROM expires_in) > 0 AND extract(epoch FROM expires_in) <= longest)
            THEN format('expires_in => %s: give an interval above 0, of at most 100 years', expires_in)
        WHEN expires_in <= delay OR run_at >= clock_timestamp() + expires_in
            THEN format('expires_in => %s: give an interval above delay, and one that ends after run_at: the job would expire before '
                        'it is due', expires_in)
    END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = '22023';
    END IF;
    entry := {schema}.enqueue_one(
        task, args, queue, priority, run_at, extract(epoch FROM delay)::double precision, max_attempts,
        extract(epoch FROM timeout)::double precision, headers, key, key_holds,
        extract(epoch FROM key_period)::double precision, on_conflict, group_key,
        extract(epoch FROM expires_in)::double precision, key_scope);
    IF entry.other_task IS NOT NULL THEN
        RAISE EXCEPTION 'key % is held by job % of task %, and key_scope => ''global'' makes it one for all tasks',
            quote_literal(key), entry.job_id, quote_literal(entry.other_task) USING ERRCODE = 'unique_violation';
    END IF;
    IF on_conflict = 'raise' AND NOT entry.created THEN
        RAISE EXCEPTION 'key % is held by job %', quote_literal(key), entry.job_id USING ERRCODE = 'unique_violation';
    END IF;
    RETURN entry.job_id;
END
$body$;
