-- Inserts one job, with a key or without: what enqueue_keyed does for one, without its generality. A key that is free is
-- taken by one statement; all else about keys is left to enqueue_keyed, whose conflicts are caught one at a time where an
-- error must not end the caller's transaction.
CREATE OR REPLACE FUNCTION {schema}.enqueue_one(
    task text, args jsonb, queue text, priority integer, run_at timestamptz, delay double precision, max_attempts integer,
    timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text,
    group_key text DEFAULT NULL, expires_in double precision DEFAULT NULL, scope text DEFAULT 'task',
    OUT job_id bigint, OUT created boolean, OUT replaced boolean, OUT other_task text
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    job_id := nextval({job_id_sequence});
    created := key IS NULL;
    replaced := false;
    IF NOT created AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        INSERT INTO {schema}.job_key (key, scope, task, job_id, holds, expires_at)
        VALUES (key, CASE WHEN scope = 'global' THEN '' ELSE task END, CASE WHEN scope = 'global' THEN task END, job_id, holds,
                CASE WHEN holds = 'period' THEN clock_timestamp() + period * interval '1 second' END)
        ON CONFLICT DO NOTHING;
        created := FOUND;
    END IF;
    IF NOT created THEN
        SELECT entry.job_id, entry.created, entry.replaced, entry.other_task INTO job_id, created, replaced, other_task
        FROM {schema}.enqueue_keyed(
            ARRAY[task], ARRAY[args::text], ARRAY[queue], ARRAY[priority], ARRAY[run_at], ARRAY[delay],
            ARRAY[max_attempts], ARRAY[timeout], ARRAY[headers::text], ARRAY[key], ARRAY[holds], ARRAY[period],
            ARRAY[on_conflict], ARRAY[group_key], ARRAY[expires_in], ARRAY[scope]) AS entry;
        RETURN;
    END IF;
    INSERT INTO {schema}.job (
        id,
        --include insert_job_keyed
    )
    VALUES (job_id, task, args, queue, priority,
            -- Never before this moment: a worker need not look for new jobs in a past that it has read (_worker/lanes/cursor.py).
            greatest(coalesce(run_at, clock_timestamp() + delay * interval '1 second'), clock_timestamp()),
            max_attempts, timeout, headers, group_key, clock_timestamp() + expires_in * interval '1 second',
            key, CASE WHEN key IS NOT NULL THEN holds END, key IS NOT NULL AND holds = 'until_started',
            CASE WHEN key IS NOT NULL THEN nullif(scope, 'task') END);
END
$body$;
