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

-- Inserts one job, with a key or without: what enqueue_keyed does for one, without its generality. A key that is free is
-- taken by one statement; all else about keys is left to enqueue_keyed, whose conflicts are caught one at a time where an
-- error must not end the caller's transaction.
CREATE OR REPLACE FUNCTION {schema}.enqueue_one(
    task text, args jsonb, queue text, priority integer, run_at timestamptz, delay double precision, max_attempts integer,
    timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text,
    group_key text DEFAULT NULL, expires_in double precision DEFAULT NULL,
    OUT job_id bigint, OUT created boolean, OUT replaced boolean
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
        INSERT INTO {schema}.job_key (key, job_id, holds, until)
        VALUES (key, job_id, holds, CASE WHEN holds = 'period' THEN clock_timestamp() + period * interval '1 second' END)
        ON CONFLICT DO NOTHING;
        created := FOUND;
    END IF;
    IF NOT created THEN
        SELECT entry.job_id, entry.created, entry.replaced INTO job_id, created, replaced
        FROM {schema}.enqueue_keyed(
            ARRAY[task], ARRAY[args::text], ARRAY[queue], ARRAY[priority], ARRAY[run_at], ARRAY[delay],
            ARRAY[max_attempts], ARRAY[timeout], ARRAY[headers::text], ARRAY[key], ARRAY[holds], ARRAY[period],
            ARRAY[on_conflict], ARRAY[group_key], ARRAY[expires_in]) AS entry;
        RETURN;
    END IF;
    INSERT INTO {schema}.job (id, task, args, queue, priority, run_at, max_attempts, timeout, headers, key, key_holds,
                              key_until_started, group_key, expires_at)
    VALUES (job_id, task, args, queue, priority,
            -- Never before this moment: a worker need not look for new jobs in a past that it has read (worker/cursor.py).
            greatest(coalesce(run_at, clock_timestamp() + delay * interval '1 second'), clock_timestamp()),
            max_attempts, timeout, headers, key, CASE WHEN key IS NOT NULL THEN holds END,
            key IS NOT NULL AND holds = 'until_started', group_key, clock_timestamp() + expires_in * interval '1 second');
END
$body$;

-- Inserts jobs of which some have idempotency keys; the arrays run in parallel, one element a job. Returns one row a job.
--
-- Keys are taken one at a time in sorted order, so that every lock of every such call is taken in the same order and two
-- calls cannot deadlock. DO NOTHING, never DO UPDATE: that would lock the holder's row and make the acknowledgement of its
-- job wait for the caller's transaction. In READ COMMITTED each statement below has a fresh snapshot, so a holder that has
-- just committed is seen. In REPEATABLE READ and SERIALIZABLE a holder beyond the snapshot raises serialization_failure
-- inside a block of its own: the caller's transaction goes on, and the holder's id is unknown (NULL).
--
-- A holder that was read by one statement may have started before the next. So a holder that is to be replaced, or that is
-- returned and has yet to start, is locked first until the caller's commit, and only then is it asked whether the key is still
-- its own; if not, all begins again. `replace` locks FOR NO KEY UPDATE. `return` locks FOR KEY SHARE, beside others that do the same
-- and beside claims; it only keeps start_jobs.sql from starting the holder before the caller has committed what the holder is to see.
-- These locks are taken in the order of the keys, and everything else that locks jobs skips what is locked.
-- With on_conflict 'raise' and a conflict, nothing stays inserted and the conflicts are returned.
-- SECURITY DEFINER: a producer may enqueue, and neither read nor change keys.
CREATE OR REPLACE FUNCTION {schema}.enqueue_keyed(
    tasks text[], args text[], queues text[], priorities integer[], run_ats timestamptz[], delays double precision[],
    max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[],
    periods double precision[], on_conflicts text[], group_keys text[] DEFAULT NULL,
    expires_ins double precision[] DEFAULT NULL
) RETURNS TABLE (ord integer, job_id bigint, created boolean, replaced boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
    fresh_snapshots constant boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
    total constant integer := coalesce(cardinality(tasks), 0);
    -- In the order given, whatever the order of the keys: jobs of one call run first come, first served.
    ids bigint[] := ARRAY(SELECT nextval({job_id_sequence}) FROM generate_series(1, total));
    made boolean[] := array_fill(true, ARRAY[total]);
    changed boolean[] := array_fill(false, ARRAY[total]);
    refused boolean := false;
    n integer;
    new_id bigint;
    holder bigint;
    holder_until timestamptz;
    holder_holds text;
    tries integer;
    found_one boolean;
    was_due timestamptz;
    its_queue text;
    its_group text;
    was_parked boolean;
    expires timestamptz;
    first integer;  -- of the run of equal keys within this call, when it is to be inserted
BEGIN
    FOR n IN
        SELECT input.ord FROM unnest(keys) WITH ORDINALITY AS input (key, ord)
        WHERE input.key IS NOT NULL
        ORDER BY input.key COLLATE "C", input.ord
    LOOP
        new_id := ids[n];
        IF first IS NOT NULL AND keys[first] = keys[n] AND on_conflicts[n] = 'replace' THEN
            args[first] := args[n];
            headers[first] := headers[n];
            run_ats[first] := run_ats[n];
            delays[first] := delays[n];
            ids[n] := ids[first];
            made[n] := false;
            changed[n] := true;
            CONTINUE;
        END IF;
        expires := CASE WHEN holds[n] = 'period' THEN clock_timestamp() + periods[n] * interval '1 second' END;
        tries := 0;
        LOOP
            holder := NULL;
            holder_until := NULL;
            made[n] := false;
            found_one := false;
            tries := tries + 1;
            IF fresh_snapshots THEN
                INSERT INTO {schema}.job_key AS taken (key, job_id, holds, until)
                VALUES (keys[n], new_id, holds[n], expires)
                ON CONFLICT DO NOTHING;
                made[n] := FOUND;
                EXIT WHEN made[n];
                SELECT taken.job_id, taken.until, taken.holds INTO holder, holder_until, holder_holds
                FROM {schema}.job_key AS taken WHERE taken.key = keys[n];
                -- Let go between the two statements: try again.
                CONTINUE WHEN NOT FOUND;
                IF holder_until <= clock_timestamp() THEN
                    DELETE FROM {schema}.job_key AS taken WHERE taken.key = keys[n] AND taken.until <= clock_timestamp();
                    CONTINUE;
                END IF;
                IF on_conflicts[n] = 'replace' THEN
                    SELECT waiting.run_at, waiting.queue, waiting.group_key, true, waiting.state = 'parked'
                    INTO was_due, its_queue, its_group, found_one, was_parked
                    FROM {schema}.job AS waiting
                    WHERE waiting.id = holder
                      AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                    FOR NO KEY UPDATE;
                ELSIF on_conflicts[n] = 'return' AND holder_holds = 'until_started' THEN
                    PERFORM FROM {schema}.job AS waiting WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                ELSE
                    EXIT;
                END IF;
                PERFORM FROM {schema}.job_key AS taken WHERE taken.key = keys[n] AND taken.job_id = holder;
                -- It has started, or ended, while its row was waited for.
                CONTINUE WHEN NOT FOUND;
            ELSE
                BEGIN
                    INSERT INTO {schema}.job_key AS taken (key, job_id, holds, until)
                    VALUES (keys[n], new_id, holds[n], expires)
                    ON CONFLICT DO NOTHING;
                    made[n] := FOUND;
                    IF NOT made[n] THEN
                        SELECT taken.job_id, taken.until, taken.holds INTO holder, holder_until, holder_holds
                        FROM {schema}.job_key AS taken WHERE taken.key = keys[n];
                        IF holder_until <= clock_timestamp() THEN
                            UPDATE {schema}.job_key AS taken SET job_id = new_id, holds = enqueue_keyed.holds[n], until = expires
                            WHERE taken.key = keys[n];
                            made[n] := FOUND;
                        ELSIF on_conflicts[n] = 'replace' OR (on_conflicts[n] = 'return' AND holder_holds = 'until_started') THEN
                            -- Fails when the holder has changed since the snapshot, for instance by a claim.
                            IF on_conflicts[n] = 'replace' THEN
                                SELECT waiting.run_at, waiting.queue, waiting.group_key, true, waiting.state = 'parked'
                                INTO was_due, its_queue, its_group, found_one, was_parked
                                FROM {schema}.job AS waiting
                                WHERE waiting.id = holder
                                  AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                                FOR NO KEY UPDATE;
                            ELSE
                                PERFORM FROM {schema}.job AS waiting
                                WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                            END IF;
                            -- The snapshot cannot tell whether the key is still its own; an insert can.
                            INSERT INTO {schema}.job_key AS taken (key, job_id, holds, until)
                            VALUES (keys[n], new_id, holds[n], expires)
                            ON CONFLICT DO NOTHING;
                            made[n] := FOUND;
                        END IF;
                    END IF;
                EXCEPTION WHEN serialization_failure OR unique_violation THEN
                    made[n] := false;
                    found_one := false;
                    -- A key that was released meanwhile can be had after all.
                    CONTINUE WHEN tries < 3;
                    -- `replaced` tells that this one was not; `return` could not make it wait for the caller's commit.
                    IF on_conflicts[n] <> 'replace' THEN
                        holder := NULL;
                    END IF;
                END;
                EXIT WHEN made[n];
            END IF;
            EXIT;
        END LOOP;
        IF made[n] THEN
            first := n;
            CONTINUE;
        END IF;
        ids[n] := holder;
        IF on_conflicts[n] = 'raise' THEN
            refused := true;
        ELSIF on_conflicts[n] = 'replace' AND found_one THEN
            -- Locked above, so that nobody has changed it since.
            -- One that was parked for its former arguments stands in its queue again, for any code.
            UPDATE {schema}.job AS waiting
            SET args = enqueue_keyed.args[n]::jsonb, headers = enqueue_keyed.headers[n]::jsonb,
                state = CASE WHEN waiting.state = 'parked' THEN {schema}.entry_state(waiting.queue, waiting.group_key) ELSE waiting.state END,
                parked_claims = NULL,
                run_at = greatest(coalesce(run_ats[n], clock_timestamp() + delays[n] * interval '1 second'), clock_timestamp())
            WHERE waiting.id = holder;
            changed[n] := FOUND;
            -- Its group's turn was for the time that it had.
            IF changed[n] AND its_group IS NOT NULL THEN
                INSERT INTO {schema}.job_turn (queue, group_key, due_at)
                SELECT waiting.queue, waiting.group_key, waiting.run_at FROM {schema}.job AS waiting
                WHERE waiting.id = holder AND waiting.state = 'waiting';
            END IF;
            -- The trigger tells of inserts only, and workers sleep until the first time that they know of.
            IF changed[n] AND (was_parked
                               OR coalesce(run_ats[n], clock_timestamp() + coalesce(delays[n], 0) * interval '1 second') < was_due)
               AND ((SELECT last_value FROM {schema}.wake) <> 2 OR its_group IS NOT NULL) THEN
                PERFORM pg_notify({schema_literal}, 'insert ' || its_queue);
            END IF;
        END IF;
    END LOOP;

    IF refused THEN
        DELETE FROM {schema}.job_key AS taken
        USING unnest(keys, ids, made) AS mine (key, id, made)
        WHERE taken.key = mine.key AND taken.job_id = mine.id AND mine.made;
        RETURN QUERY
            -- A holder out of this very call is gone with it, and has no id to tell.
            SELECT result.ord::integer, CASE WHEN mine.job IS NULL THEN result.job END, false, false
            FROM unnest(ids, made, on_conflicts) WITH ORDINALITY AS result (job, fresh, policy, ord)
            LEFT JOIN unnest(ids, made) AS mine (job, fresh) ON mine.job = result.job AND mine.fresh
            WHERE NOT result.fresh AND result.policy = 'raise'
            ORDER BY result.ord;
        RETURN;
    END IF;

    INSERT INTO {schema}.job (id, task, args, queue, priority, run_at, max_attempts, timeout, headers, key, key_holds,
                              key_until_started, group_key, expires_at)
    SELECT input.id, input.task, input.args::jsonb, input.queue, input.priority,
           -- Never before this moment: a worker need not look for new jobs in a past that it has read (worker/cursor.py).
           greatest(coalesce(input.run_at, clock_timestamp() + input.delay * interval '1 second'), clock_timestamp()),
           input.max_attempts, input.timeout, input.headers::jsonb, input.key, CASE WHEN input.key IS NOT NULL THEN input.holds END,
           input.key IS NOT NULL AND input.holds = 'until_started', input.group_key,
           clock_timestamp() + input.expires_in * interval '1 second'
    FROM unnest(ids, made, tasks, args, queues, priorities, run_ats, delays, max_attempts, timeouts, headers, keys, holds, group_keys,
                expires_ins)
        AS input (id, made, task, args, queue, priority, run_at, delay, max_attempts, timeout, headers, key, holds, group_key,
                  expires_in)
    WHERE input.made
    ORDER BY input.id;

    RETURN QUERY
        SELECT result.ord::integer, result.id, result.made, result.changed
        FROM unnest(ids, made, changed) WITH ORDINALITY AS result (id, made, changed, ord)
        ORDER BY result.ord;
END
$body$;

-- Takes the key of a job that returns to life: one put back from history, or one whose start did not come. Returns the id of the
-- job that has the key then: this one's when it was free, expired or still this one's; NULL when that cannot be known at once,
-- because a transaction that is still open has it. Waits for 50 ms at most, so that two calls with keys in other orders never
-- deadlock, and no caller's open transaction holds up a worker.
-- A period that is over is not begun again: the job goes without the key, and its own id is returned.
-- SECURITY DEFINER: neither worker nor operator may write keys otherwise.
CREATE OR REPLACE FUNCTION {schema}.take_key(key text, job_id bigint, holds text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $body$
#variable_conflict use_column
DECLARE
    holder bigint;
BEGIN
    IF take_key.holds = 'period' THEN
        SELECT taken.job_id INTO holder FROM {schema}.job_key AS taken
        WHERE taken.key = take_key.key AND (taken.until IS NULL OR taken.until > clock_timestamp());
        RETURN coalesce(holder, take_key.job_id);
    END IF;
    FOR n IN 1..3 LOOP
        INSERT INTO {schema}.job_key AS taken (key, job_id, holds)
        VALUES (take_key.key, take_key.job_id, take_key.holds)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN take_key.job_id;
        END IF;
        SELECT taken.job_id INTO holder FROM {schema}.job_key AS taken
        WHERE taken.key = take_key.key AND (taken.until IS NULL OR taken.until > clock_timestamp());
        IF FOUND THEN
            RETURN holder;
        END IF;
        DELETE FROM {schema}.job_key AS taken WHERE taken.key = take_key.key AND taken.until <= clock_timestamp();
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN lock_not_available OR serialization_failure OR deadlock_detected THEN
    RETURN NULL;
END
$body$;

-- As in 0001, and of jobs that wait for their group's turn in the brisk mode as well: the sentinel, which looks at the heads of
-- lanes, does not see them. Plain jobs in the brisk mode cost what they did.
-- Above 100 queues in one statement the workers get one message, `many`, and look for themselves: the server keeps equal messages of
-- a transaction once.
CREATE OR REPLACE FUNCTION {schema}.notify_insert() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF (SELECT last_value FROM {schema}.wake) <> 2 OR coalesce(current_setting('jobq.turn', true), '') <> '' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, CASE WHEN count(*) OVER () > 100 THEN 'many' ELSE 'insert ' || fresh.queue END)
        FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state IN ('ready', 'waiting') LIMIT 101) AS fresh;
    END IF;
    RETURN NULL;
END
$body$;

