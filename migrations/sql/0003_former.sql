-- The functions of revision 0001, under other names: what was built upon them (a function with BEGIN ATOMIC, a view) goes on, and so
-- does a statement that was under way. They do what the present functions do. A later revision may drop those that nothing depends on.
CREATE OR REPLACE FUNCTION {schema}.enqueue_0002(
    task text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', priority integer DEFAULT 5,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, key text DEFAULT NULL, key_holds text DEFAULT 'period',
    key_period interval DEFAULT '7 days', on_conflict text DEFAULT 'return', max_attempts integer DEFAULT 10,
    timeout interval DEFAULT NULL, headers jsonb DEFAULT '{}'
) RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT {schema}.enqueue(task, args, queue, priority, run_at, delay, key, key_holds, key_period, on_conflict, max_attempts, timeout,
                            headers)
$body$;

CREATE OR REPLACE FUNCTION {schema}.enqueue_one_0002(
    task text, args jsonb, queue text, priority integer, run_at timestamptz, delay double precision, max_attempts integer,
    timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text,
    OUT job_id bigint, OUT created boolean, OUT replaced boolean
)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT made.job_id, made.created, made.replaced
    FROM {schema}.enqueue_one(task, args, queue, priority, run_at, delay, max_attempts, timeout, headers, key, holds, period,
                              on_conflict) AS made
$body$;

CREATE OR REPLACE FUNCTION {schema}.enqueue_keyed_0002(
    tasks text[], args text[], queues text[], priorities integer[], run_ats timestamptz[], delays double precision[],
    max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[],
    periods double precision[], on_conflicts text[]
) RETURNS TABLE (ord integer, job_id bigint, created boolean, replaced boolean)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT made.ord, made.job_id, made.created, made.replaced
    FROM {schema}.enqueue_keyed(tasks, args, queues, priorities, run_ats, delays, max_attempts, timeouts, headers, keys, holds,
                                periods, on_conflicts) AS made
$body$;
