-- Inserts jobs, some with idempotency keys; the arrays run in parallel, one element a job. Returns one row a job.
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
-- With on_conflict 'raise' and a conflict, nothing stays inserted and the conflicts are returned. So it is, whatever on_conflict, if a
-- key of the scope 'global' is held by a job of another task: its arguments are not this task's to replace, nor its result to read.
-- `other_task` then names the holder's task ('' if it is not known). Holders are replaced last, when there is no such conflict.
-- SECURITY DEFINER: a producer may enqueue, and neither read nor change keys.
CREATE OR REPLACE FUNCTION {schema}.enqueue_keyed(
    tasks text[], args text[], queues text[], priorities integer[], run_ats timestamptz[], delays double precision[],
    max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[],
    periods double precision[], on_conflicts text[], group_keys text[] DEFAULT NULL,
    expires_ins double precision[] DEFAULT NULL, scopes text[] DEFAULT NULL
) RETURNS TABLE (ord integer, job_id bigint, created boolean, replaced boolean, other_task text)
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
    -- Where a key is held: by its task, or by all ('').
    spaces constant text[] := ARRAY(SELECT CASE WHEN input.scope = 'global' THEN '' ELSE input.task END
                                    FROM unnest(tasks, scopes) WITH ORDINALITY AS input (task, scope, ord) ORDER BY input.ord);
    made boolean[] := array_fill(true, ARRAY[total]);
    changed boolean[] := array_fill(false, ARRAY[total]);
    to_replace boolean[] := array_fill(false, ARRAY[total]);
    others text[] := array_fill(NULL::text, ARRAY[total]);
    refused boolean := false;
    n integer;
    new_id bigint;
    holder bigint;
    holder_until timestamptz;
    holder_holds text;
    holder_task text;
    is_other boolean;
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
        SELECT input.ord FROM unnest(keys, spaces) WITH ORDINALITY AS input (key, space, ord)
        WHERE input.key IS NOT NULL
        ORDER BY input.key COLLATE "C", input.space COLLATE "C", input.ord
    LOOP
        new_id := ids[n];
        IF first IS NOT NULL AND keys[first] = keys[n] AND spaces[first] = spaces[n] AND tasks[first] = tasks[n]
           AND on_conflicts[n] = 'replace' THEN
            args[first] := args[n];
            headers[first] := headers[n];
            run_ats[first] := run_ats[n];
            delays[first] := delays[n];
            expires_ins[first] := expires_ins[n];
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
            is_other := false;
            tries := tries + 1;
            IF fresh_snapshots THEN
                INSERT INTO {schema}.job_key AS taken (key, scope, task, job_id, holds, expires_at)
                VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
                ON CONFLICT DO NOTHING;
                made[n] := FOUND;
                EXIT WHEN made[n];
                SELECT taken.job_id, taken.expires_at, taken.holds, taken.task INTO holder, holder_until, holder_holds, holder_task
                FROM {schema}.job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                -- Let go between the two statements: try again.
                CONTINUE WHEN NOT FOUND;
                IF holder_until <= clock_timestamp() THEN
                    DELETE FROM {schema}.job_key AS taken
                    WHERE taken.key = keys[n] AND taken.scope = spaces[n] AND taken.expires_at <= clock_timestamp();
                    CONTINUE;
                END IF;
                is_other := spaces[n] = '' AND holder_task IS DISTINCT FROM tasks[n];
                EXIT WHEN is_other;
                IF on_conflicts[n] = 'replace' THEN
                    PERFORM FROM {schema}.job AS waiting
                    WHERE waiting.id = holder
                      AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                    FOR NO KEY UPDATE;
                    found_one := FOUND;
                ELSIF on_conflicts[n] = 'return' AND holder_holds = 'until_started' THEN
                    PERFORM FROM {schema}.job AS waiting WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                ELSE
                    EXIT;
                END IF;
                PERFORM FROM {schema}.job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n] AND taken.job_id = holder;
                -- It has started, or ended, while its row was waited for.
                CONTINUE WHEN NOT FOUND;
            ELSE
                BEGIN
                    INSERT INTO {schema}.job_key AS taken (key, scope, task, job_id, holds, expires_at)
                    VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
                    ON CONFLICT DO NOTHING;
                    made[n] := FOUND;
                    IF NOT made[n] THEN
                        SELECT taken.job_id, taken.expires_at, taken.holds, taken.task INTO holder, holder_until, holder_holds, holder_task
                        FROM {schema}.job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                        IF holder_until <= clock_timestamp() THEN
                            UPDATE {schema}.job_key AS taken
                            SET job_id = new_id, task = CASE WHEN spaces[n] = '' THEN tasks[n] END, holds = enqueue_keyed.holds[n],
                                expires_at = expires
                            WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                            made[n] := FOUND;
                        ELSIF spaces[n] = '' AND holder IS NOT NULL AND holder_task IS DISTINCT FROM tasks[n] THEN
                            is_other := true;
                        ELSIF on_conflicts[n] = 'replace' OR (on_conflicts[n] = 'return' AND holder_holds = 'until_started') THEN
                            -- Fails when the holder has changed since the snapshot, for instance by a claim.
                            IF on_conflicts[n] = 'replace' THEN
                                PERFORM FROM {schema}.job AS waiting
                                WHERE waiting.id = holder
                                  AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                                FOR NO KEY UPDATE;
                                found_one := FOUND;
                            ELSE
                                PERFORM FROM {schema}.job AS waiting
                                WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                            END IF;
                            -- The snapshot cannot tell whether the key is still its own; an insert can.
                            INSERT INTO {schema}.job_key AS taken (key, scope, task, job_id, holds, expires_at)
                            VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
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
        IF is_other THEN
            others[n] := coalesce(holder_task, '');
            refused := true;
        ELSIF on_conflicts[n] = 'raise' THEN
            refused := true;
        ELSE
            to_replace[n] := on_conflicts[n] = 'replace' AND found_one;
        END IF;
    END LOOP;

    IF refused THEN
        DELETE FROM {schema}.job_key AS taken
        USING unnest(keys, ids, made) AS mine (key, id, made)
        WHERE taken.key = mine.key AND taken.job_id = mine.id AND mine.made;
        RETURN QUERY
            -- A holder out of this very call is gone with it, and has no id to tell.
            SELECT result.ord::integer, CASE WHEN mine.job IS NULL THEN result.job END, false, false, result.other
            FROM unnest(ids, made, on_conflicts, others) WITH ORDINALITY AS result (job, fresh, policy, other, ord)
            LEFT JOIN unnest(ids, made) AS mine (job, fresh) ON mine.job = result.job AND mine.fresh
            WHERE NOT result.fresh AND (result.policy = 'raise' OR result.other IS NOT NULL)
            ORDER BY result.ord;
        RETURN;
    END IF;

    FOR n IN 1..total LOOP
        CONTINUE WHEN NOT to_replace[n];
        -- Locked above, so that no other transaction has changed it since.
        -- One that was parked for its former arguments stands in its queue again, for any code.
        UPDATE {schema}.job AS waiting
        SET args = enqueue_keyed.args[n]::jsonb, headers = enqueue_keyed.headers[n]::jsonb,
            state = CASE WHEN waiting.state = 'parked' THEN {schema}.entry_state(waiting.queue, waiting.group_key) ELSE waiting.state END,
            parked_claims = NULL,
            run_at = greatest(coalesce(run_ats[n], clock_timestamp() + delays[n] * interval '1 second'), clock_timestamp()),
            -- With its former expiry a burst of calls would move it beyond that, and it would never run.
            expires_at = clock_timestamp() + expires_ins[n] * interval '1 second'
        FROM (SELECT prior.run_at, prior.state = 'parked' AS parked FROM {schema}.job AS prior WHERE prior.id = ids[n]) AS former
        WHERE waiting.id = ids[n]
        RETURNING waiting.queue, waiting.group_key, former.run_at, former.parked INTO its_queue, its_group, was_due, was_parked;
        changed[n] := FOUND;
        -- Its group's turn was for the time that it had.
        IF changed[n] AND its_group IS NOT NULL THEN
            INSERT INTO {schema}.group_ready (queue, group_key, due_at)
            SELECT waiting.queue, waiting.group_key, waiting.run_at FROM {schema}.job AS waiting
            WHERE waiting.id = ids[n] AND waiting.state = 'waiting';
        END IF;
        -- The trigger tells of inserts only, and workers sleep until the first time that they know of.
        IF changed[n] AND coalesce(current_setting('jobq.notify', true), '') <> 'off'
           AND (was_parked OR coalesce(run_ats[n], clock_timestamp() + coalesce(delays[n], 0) * interval '1 second') < was_due)
           AND ((SELECT last_value FROM {schema}.notify_mode) <> 2 OR its_group IS NOT NULL) THEN
            PERFORM pg_notify({schema_literal}, 'insert ' || its_queue);
        END IF;
    END LOOP;

    INSERT INTO {schema}.job (
        id,
        --include insert_job_keyed
    )
    SELECT input.id, input.task, input.args::jsonb, input.queue, input.priority,
           -- Never before this moment: a worker need not look for new jobs in a past that it has read (_worker/lanes/cursor.py).
           greatest(coalesce(input.run_at, clock_timestamp() + input.delay * interval '1 second'), clock_timestamp()),
           input.max_attempts, input.timeout, input.headers::jsonb, input.group_key,
           clock_timestamp() + input.expires_in * interval '1 second',
           input.key, CASE WHEN input.key IS NOT NULL THEN input.holds END, input.key IS NOT NULL AND input.holds = 'until_started',
           CASE WHEN input.key IS NOT NULL THEN nullif(input.scope, 'task') END
    FROM unnest(ids, made, tasks, args, queues, priorities, run_ats, delays, max_attempts, timeouts, headers, keys, holds, group_keys,
                expires_ins, scopes)
        AS input (id, made, task, args, queue, priority, run_at, delay, max_attempts, timeout, headers, key, holds, group_key,
                  expires_in, scope)
    WHERE input.made
    ORDER BY input.id;

    RETURN QUERY
        SELECT result.ord::integer, result.id, result.made, result.changed, NULL::text
        FROM unnest(ids, made, changed) WITH ORDINALITY AS result (id, made, changed, ord)
        ORDER BY result.ord;
END
$body$;
