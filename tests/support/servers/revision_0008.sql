-- The schema `jobq` at revision 0008, the last of the former chain of migrations, with some rows. tests/support/servers/former.py restores it.
--
-- Made once, from the last tree that had these migrations: `jobq migrate` on an empty database of PostgreSQL 18, then jobs, keys,
-- schedules and settings through the Python API and in SQL, some of the jobs run by `jobq.worker.inprocess.drain`, and empty
-- partitions of single days dropped; then
--
--     pg_dump -n jobq --no-owner --no-privileges --no-comments --inserts --rows-per-insert=100
--
-- without its SET lines, comments (those in functions as well) and empty lines. It stays as it is: no renaming applies to it.
SET check_function_bodies = false;
CREATE SCHEMA jobq;
CREATE FUNCTION jobq.admits(jobs integer, seconds double precision, burst integer, paid timestamp with time zone, moment timestamp with time zone) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT CASE WHEN jobs IS NULL THEN NULL
                WHEN paid <= moment THEN burst
                ELSE floor((burst * seconds / jobs - extract(epoch FROM paid - moment)::double precision
                            - least(0.05, (burst - 1) * seconds / jobs / 2)) / (seconds / jobs) + 1e-6)::integer END
$$;
CREATE FUNCTION jobq.admits_from(jobs integer, seconds double precision, burst integer, paid timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT paid + (least(0.05, (burst - 1) * seconds / jobs / 2) - (burst - 1) * seconds / jobs) * interval '1 second'
$$;
CREATE FUNCTION jobq.claim_managed(by_worker uuid, of_queue text, want integer, turns_since bigint DEFAULT 0, lanes_since bigint[] DEFAULT NULL::bigint[], lanes_since_ids bigint[] DEFAULT NULL::bigint[], ran_by text DEFAULT NULL::text, ran bigint[] DEFAULT NULL::bigint[], left_out bigint[] DEFAULT '{}'::bigint[], left_out_groups text[] DEFAULT '{}'::text[], one_by_one boolean DEFAULT false) RETURNS TABLE(id bigint, claims integer, task text, queue text, args text, attempt integer, max_attempts integer, crashes integer, timeout double precision, headers text, expired boolean, started bigint, key_until_started boolean, run_alone boolean, releases integer)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    starts_at_claim constant boolean := lanes_since IS NULL;
    rule record;
    moment timestamptz;
    moment_of_round timestamptz;
    wanted integer := want;
    permits integer;
    paid timestamptz;
    tokens integer;
    total integer := 0;
    known_by text;
    known_to bigint := -1;
    counted boolean := false;
    number bigint;
    running bigint[];
    held jsonb;
    got bigint[];
    got_of integer[];
    keys text[];
    froms bigint[];
    from_ats timestamptz[];
    tids tid[];
    tid_of integer[];
    rooms integer[];
    lows bigint[];
    low_ats timestamptz[];
    lowered boolean[];
    offers integer[];
    frees integer[];
    firsts bigint[];
    done boolean[];
    picked bigint[];
    picked_of integer[];
    ways text[] := CASE WHEN random() < 0.5 THEN ARRAY['turns', 'lanes', 'turns'] ELSE ARRAY['lanes', 'turns', 'lanes'] END;
    way text;
    by_id boolean;
    in_line boolean;
    ruled boolean;
    entering boolean := false;
    batch integer;
    reach integer;
    last_offered integer;
    turns_from timestamptz := 'epoch'::timestamptz + turns_since * interval '1 microsecond';
    turns_gone integer := 0;
    next_turn timestamptz;
    next_ready timestamptz;
    next_at timestamptz;
    seen text;
    lane_counts integer[] := array_fill(0, ARRAY[10]);
    lane_of integer[];
    lane_heads text;
BEGIN
    IF NOT pg_try_advisory_xact_lock('"jobq".job_turn'::regclass::oid::integer, hashtext(of_queue)) THEN
        RETURN QUERY SELECT NULL::bigint, NULL::integer, 'locked', of_queue, NULL, NULL::integer, NULL::integer, NULL::integer,
                            NULL::double precision, NULL, false, NULL::bigint, false, NULL::boolean, NULL::integer;
        RETURN;
    END IF;
    PERFORM set_config('jobq.turn', '', true);
    SELECT settings.*, settings.xmin::text AS version INTO rule FROM "jobq".queue AS settings WHERE name = of_queue;
    IF rule.paused_at IS NOT NULL THEN
        RETURN;
    END IF;
    moment := clock_timestamp();
    moment_of_round := moment;
    SELECT concat_ws(' ', (extract(epoch FROM moment) * 1000000)::bigint, pg_snapshot_xmin(snapshot), pg_snapshot_xmax(snapshot), age('3'::xid))
    INTO seen FROM pg_current_snapshot() AS snapshot;
    IF lanes_since IS NULL THEN
        lanes_since := array_fill(0::bigint, ARRAY[10]);
        lanes_since_ids := lanes_since;
    END IF;
    ruled := rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL;
    by_id := coalesce(rule.group_mode = 'ordered', false);
    in_line := by_id AND rule.group_retry IS DISTINCT FROM 'pass';
    IF ruled THEN
        counted := rule.max_running IS NOT NULL OR by_id OR rule.group_limit IS NOT NULL
                   OR rule.group_mode IS NOT NULL
                      AND EXISTS (SELECT FROM "jobq".gate WHERE gate.queue = of_queue AND gate.max_running IS NOT NULL);
    END IF;
    IF counted THEN
        known_by := concat_ws('/', rule.version, extract(epoch FROM pg_postmaster_start_time()));
        IF ran IS NOT NULL AND split_part(ran_by, ':', 1) = known_by THEN
            known_to := split_part(ran_by, ':', 2)::bigint;
        ELSE
            ran := '{}';
        END IF;
    END IF;
    IF rule.max_running IS NOT NULL THEN
        SELECT ids INTO running FROM "jobq".managed_running(of_queue, ran, known_to, false);
        permits := rule.max_running - cardinality(running);
        wanted := least(wanted, permits);
    END IF;
    IF rule.rate_jobs IS NOT NULL THEN
        SELECT gate.paid_until INTO paid FROM "jobq".gate WHERE queue = of_queue AND group_key = '';
        paid := greatest(paid, moment);
        IF paid > moment + rule.rate_burst * rule.rate_seconds / rule.rate_jobs * interval '1 second' + interval '1 millisecond' THEN
            paid := moment + rule.rate_burst * rule.rate_seconds / rule.rate_jobs * interval '1 second';
            UPDATE "jobq".gate SET paid_until = paid WHERE gate.queue = of_queue AND gate.group_key = '';
        END IF;
        tokens := "jobq".admits(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid, moment);
        wanted := least(wanted, tokens);
    END IF;
    number := known_to;
    IF ruled AND wanted > 0 THEN
        number := nextval('"jobq".permit');
    END IF;
    IF rule.group_mode IS NOT NULL AND wanted > 0 THEN
        FOR n IN 1..20 LOOP
            IF one_by_one THEN
                SELECT late.group_key INTO way FROM "jobq".job AS late
                WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key <> ALL (left_out_groups)
                ORDER BY late.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
                IF FOUND THEN
                    RAISE INFO 'jobq turn 0 %', way;
                END IF;
            END IF;
            WITH entered AS (
                UPDATE "jobq".job SET state = 'waiting'
                WHERE id = ANY (ARRAY(
                    SELECT late.id FROM "jobq".job AS late
                    WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL
                      AND late.group_key <> ALL (left_out_groups)
                    ORDER BY late.id LIMIT CASE WHEN one_by_one THEN 1 ELSE 1000 END FOR NO KEY UPDATE SKIP LOCKED))
                RETURNING id, run_at, group_key
            )
            INSERT INTO "jobq".job_turn (queue, group_key, from_id, from_at)
            SELECT of_queue, group_key, min(id), min(run_at) FROM entered GROUP BY group_key;
            entering := FOUND;
            EXIT WHEN one_by_one OR NOT entering;
        END LOOP;
        IF one_by_one AND entering
           OR EXISTS (SELECT FROM "jobq".job AS late
                      WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL
                        AND late.group_key <> ALL (left_out_groups)) THEN
            RETURN QUERY SELECT NULL::bigint, permits, NULL, of_queue, NULL, NULL::integer, NULL::integer, NULL::integer,
                                CASE WHEN entering THEN 0 ELSE 0.25 END::double precision, NULL, false, NULL::bigint, false,
                                NULL::boolean, NULL::integer;
            RETURN;
        END IF;
        moment_of_round := clock_timestamp();
    END IF;
    <<claiming>>
    FOREACH way IN ARRAY ways LOOP
        FOR n IN 1..8 LOOP
            EXIT WHEN wanted <= 0;
            IF way = 'lanes' THEN
                WITH heads AS MATERIALIZED (
                    SELECT head.id, lane.n
                    FROM unnest(ARRAY[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]::smallint[], lanes_since, lanes_since_ids)
                         WITH ORDINALITY AS lane (priority, since, since_id, n)
                    CROSS JOIN LATERAL (
                        SELECT ready.id, ready.run_at FROM "jobq".job AS ready
                        WHERE ready.queue = of_queue AND ready.priority = lane.priority AND ready.state = 'ready'
                          AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
                          AND ready.run_at <= moment AND (rule.group_mode IS NULL OR ready.group_key IS NULL)
                          AND ready.id <> ALL (left_out)
                        ORDER BY ready.run_at, ready.id
                        LIMIT wanted
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS head
                    LIMIT wanted
                )
                SELECT array_agg(heads.id), array_agg(heads.n::integer) INTO got, lane_of FROM heads;
                EXIT WHEN got IS NULL;
                IF one_by_one THEN
                    RAISE INFO 'jobq job % % %', lane_of[1] - 1,
                        (SELECT (extract(epoch FROM job.run_at) * 1000000)::bigint FROM "jobq".job WHERE job.id = got[1]), got[1];
                END IF;
                FOREACH reach IN ARRAY lane_of LOOP
                    lane_counts[reach] := lane_counts[reach] + 1;
                END LOOP;
            ELSE
                batch := CASE WHEN one_by_one THEN 1 ELSE greatest(wanted, 64) END;
                reach := batch;
                LOOP
                    WITH line AS MATERIALIZED (
                        SELECT turn.ctid AS tid, turn.group_key, turn.due_at, turn.from_id, turn.from_at
                        FROM "jobq".job_turn AS turn
                        WHERE turn.queue = of_queue AND turn.due_at >= turns_from AND turn.due_at <= moment_of_round
                          AND turn.group_key <> ALL (left_out_groups)
                        ORDER BY turn.due_at LIMIT reach
                    ), each AS MATERIALIZED (
                        SELECT group_key, min(from_id) AS from_id, min(from_at) AS from_at, array_agg(tid) AS tids,
                               row_number() OVER (ORDER BY min(due_at), group_key)::integer AS n
                        FROM line GROUP BY group_key
                    )
                    SELECT array_agg(each.group_key ORDER BY n), array_agg(each.from_id ORDER BY n), array_agg(each.from_at ORDER BY n),
                           (SELECT array_agg(one.tid) FROM each, unnest(each.tids) AS one (tid)),
                           (SELECT array_agg(each.n) FROM each, unnest(each.tids) AS one (tid))
                    INTO keys, froms, from_ats, tids, tid_of FROM each;
                    EXIT WHEN keys IS NULL OR cardinality(tids) < reach OR cardinality(keys) >= batch OR reach >= 65536;
                    reach := reach * 4;
                END LOOP;
                EXIT WHEN keys IS NULL;
                IF one_by_one THEN
                    RAISE INFO 'jobq turn % %', (SELECT (extract(epoch FROM min(turn.due_at)) * 1000000)::bigint
                                                 FROM "jobq".job_turn AS turn WHERE turn.ctid = ANY (tids)), keys[1];
                END IF;
                IF counted THEN
                    SELECT ids, groups INTO running, held FROM "jobq".managed_running(of_queue, ran, known_to, true);
                END IF;
                IF rule.group_rate_jobs IS NOT NULL THEN
                    UPDATE "jobq".gate
                    SET paid_until = moment + rule.group_rate_burst * rule.group_rate_seconds / rule.group_rate_jobs * interval '1 second'
                    WHERE gate.queue = of_queue AND gate.group_key = ANY (keys)
                      AND gate.paid_until > moment + interval '1 millisecond'
                          + rule.group_rate_burst * rule.group_rate_seconds / rule.group_rate_jobs * interval '1 second';
                END IF;
                SELECT array_agg(
                           greatest(0, least(
                               CASE WHEN by_id THEN 1 ELSE coalesce(gate.max_running, rule.group_limit, 1000000) END
                               - coalesce((held ->> turn.group_key)::integer, 0),
                               "jobq".admits(
                                   rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst,
                                   greatest(gate.paid_until, moment), moment)))::integer
                           ORDER BY turn.n),
                       array_agg(least(turn.from_id, CASE WHEN by_id THEN coalesce(gate.head_id, 0) ELSE 0 END) ORDER BY turn.n),
                       array_agg(least(turn.from_at, CASE WHEN in_line THEN '-infinity' ELSE coalesce(gate.head_at, '-infinity') END)
                                 ORDER BY turn.n),
                       array_agg(coalesce(CASE WHEN by_id THEN gate.head_id > turn.from_id ELSE gate.head_id IS NOT NULL END, false)
                                 OR coalesce(CASE WHEN in_line THEN gate.head_at IS NOT NULL ELSE gate.head_at > turn.from_at END, false)
                                 ORDER BY turn.n)
                INTO rooms, lows, low_ats, lowered
                FROM unnest(keys, froms, from_ats) WITH ORDINALITY AS turn (group_key, from_id, from_at, n)
                LEFT JOIN LATERAL (
                    SELECT gate.max_running, gate.paid_until, gate.head_id, gate.head_at FROM "jobq".gate
                    WHERE gate.queue = of_queue AND gate.group_key = turn.group_key LIMIT 1
                ) AS gate ON true;
                IF by_id THEN
                    SELECT array_agg(head.id), array_agg(head.n::integer) INTO picked, picked_of
                    FROM (
                        SELECT head.id, turn.n
                        FROM unnest(keys, rooms, lows) WITH ORDINALITY AS turn (group_key, room, low, n)
                        CROSS JOIN LATERAL (
                            SELECT first.id, first.run_at FROM "jobq".job AS first
                            WHERE first.queue = of_queue AND first.group_key <= turn.group_key AND first.state = 'waiting'
                              AND (first.group_key, first.id) >= (turn.group_key, turn.low) AND (in_line OR first.run_at <= moment)
                            ORDER BY first.group_key, first.id LIMIT 1
                        ) AS head
                        WHERE turn.room > 0 AND head.run_at <= moment
                        LIMIT wanted
                    ) AS head (id, n);
                ELSE
                    SELECT array_agg(head.id), array_agg(head.n::integer) INTO picked, picked_of
                    FROM (
                        SELECT head.id, turn.n
                        FROM unnest(keys, rooms, low_ats) WITH ORDINALITY AS turn (group_key, room, low, n)
                        CROSS JOIN LATERAL (
                            SELECT first.id FROM "jobq".job AS first
                            WHERE first.queue = of_queue AND first.group_key = turn.group_key AND first.state = 'waiting'
                              AND first.run_at >= turn.low AND first.run_at <= moment
                            ORDER BY first.run_at, first.id
                            LIMIT least(turn.room, greatest(1, wanted / cardinality(keys)))
                        ) AS head
                        WHERE turn.room > 0
                        LIMIT wanted
                    ) AS head (id, n);
                END IF;
                picked := coalesce(picked, '{}');
                picked_of := coalesce(picked_of, '{}');
                SELECT coalesce(array_agg(free.id), '{}'), coalesce(array_agg(free.n), '{}') INTO got, got_of
                FROM (
                    SELECT free.id, one.n
                    FROM unnest(picked, picked_of) AS one (id, n)
                    CROSS JOIN LATERAL (
                        SELECT job.id, job.state, job.queue, job.group_key, job.run_at FROM "jobq".job AS job
                        WHERE job.id = one.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
                    ) AS free
                    WHERE free.state = 'waiting' AND free.queue = of_queue AND free.group_key = keys[one.n]
                      AND free.run_at <= moment
                ) AS free;
                offers := array_fill(0, ARRAY[cardinality(keys)]);
                frees := offers;
                firsts := array_fill(NULL::bigint, ARRAY[cardinality(keys)]);
                FOREACH reach IN ARRAY picked_of LOOP
                    offers[reach] := offers[reach] + 1;
                END LOOP;
                FOR place IN 1..cardinality(got) LOOP
                    frees[got_of[place]] := frees[got_of[place]] + 1;
                    firsts[got_of[place]] := least(firsts[got_of[place]], got[place]);
                END LOOP;
                last_offered := CASE WHEN cardinality(picked) >= wanted THEN picked_of[cardinality(picked_of)] END;
                done := ARRAY(SELECT room <= 0 OR last_offered IS NULL OR n <= last_offered
                              FROM unnest(rooms) WITH ORDINALITY AS one (room, n) ORDER BY n);
            END IF;
            RETURN QUERY
                WITH claimed AS (
                    UPDATE "jobq".job AS job
                    SET state = 'running', managed = ruled, permit = number, attempt = least(job.attempt, 2147483646) + 1,
                        claims = CASE job.claims WHEN 2147483647 THEN 1 ELSE job.claims + 1 END, worker_id = by_worker,
                        started_at = moment, progress = NULL
                    WHERE job.id = ANY (got)
                    RETURNING job.id, job.claims, job.task, job.queue, job.args, job.attempt, job.max_attempts,
                              job.crashes - job.losses AS crashes, job.timeout, job.headers, job.expires_at, job.key_until_started,
                              job.run_alone, job.releases
                )
                SELECT claimed.id, claimed.claims, claimed.task, claimed.queue, claimed.args::text, claimed.attempt,
                       claimed.max_attempts, claimed.crashes::integer, claimed.timeout, claimed.headers::text,
                       claimed.expires_at <= moment, (SELECT (extract(epoch FROM moment) * 1000000)::bigint), claimed.key_until_started,
                       claimed.run_alone, claimed.releases::integer
                FROM claimed;
            IF starts_at_claim THEN
                DELETE FROM "jobq".job_key AS taken USING "jobq".job AS begun
                WHERE begun.id = ANY (got) AND begun.key_until_started AND taken.key = begun.key
                  AND taken.job_id = begun.id AND taken.holds = 'until_started';
                UPDATE "jobq".job AS begun SET key_until_started = false
                WHERE begun.id = ANY (got) AND begun.key_until_started;
            END IF;
            wanted := wanted - cardinality(got);
            total := total + cardinality(got);
            IF running IS NOT NULL THEN
                running := running || got;
            END IF;
            IF way = 'turns' THEN
                IF rule.group_rate_jobs IS NOT NULL AND cardinality(got) > 0 THEN
                    INSERT INTO "jobq".gate AS gate (queue, group_key, paid_until)
                    SELECT of_queue, used.group_key,
                           moment + ceil(used.jobs * (rule.group_rate_seconds / rule.group_rate_jobs) * 1000000) * interval '1 microsecond'
                    FROM unnest(keys, frees) AS used (group_key, jobs) WHERE used.jobs > 0
                    ON CONFLICT (queue, group_key) DO UPDATE
                    SET paid_until = greatest(gate.paid_until, moment) + (excluded.paid_until - moment);
                END IF;
                INSERT INTO "jobq".gate AS gate (queue, group_key, head_id, head_at, paid_until)
                SELECT of_queue, turn.group_key,
                       CASE WHEN by_id THEN CASE WHEN turn.room > 0 THEN least(
                           coalesce(turn.first, 9223372036854775807),
                           coalesce((SELECT next.id FROM "jobq".job AS next
                                     WHERE next.queue = of_queue AND next.group_key <= turn.group_key AND next.state = 'waiting'
                                       AND (next.group_key, next.id) >= (turn.group_key, turn.low)
                                     ORDER BY next.group_key, next.id LIMIT 1), 9223372036854775807)) ELSE turn.low END END,
                       CASE WHEN NOT in_line THEN CASE WHEN turn.room > 0 THEN coalesce(
                           (SELECT next.run_at FROM "jobq".job AS next
                            WHERE next.queue = of_queue AND next.group_key = turn.group_key AND next.state = 'waiting'
                              AND next.run_at >= turn.low_at
                            ORDER BY next.run_at, next.id LIMIT 1), moment) ELSE turn.low_at END END,
                       moment
                FROM unnest(keys, rooms, frees, done, lowered, lows, low_ats, firsts)
                     AS turn (group_key, room, used, done, lowered, low, low_at, first)
                WHERE turn.done AND (turn.lowered OR random() < turn.used / 32.0)
                ON CONFLICT (queue, group_key) DO UPDATE
                SET head_id = excluded.head_id, head_at = excluded.head_at,
                    paid_until = greatest(gate.paid_until, excluded.paid_until);
                DELETE FROM "jobq".job_turn
                WHERE ctid = ANY (ARRAY(SELECT one.tid FROM unnest(tids, tid_of) AS one (tid, n) WHERE done[one.n]));
                GET DIAGNOSTICS reach = ROW_COUNT;
                turns_gone := turns_gone + reach;
                INSERT INTO "jobq".job_turn (queue, group_key, due_at, from_id, from_at)
                SELECT of_queue, turn.group_key,
                       CASE WHEN turn.room <= turn.used
                                 THEN greatest(following.run_at, seen.payable)
                            WHEN turn.offered > turn.used THEN greatest(following.run_at, moment + interval '250 milliseconds')
                            ELSE greatest(following.run_at, clock_timestamp()) END,
                       9223372036854775807, 'infinity'::timestamptz
                FROM unnest(keys, rooms, frees, offers, done, lows, low_ats)
                     AS turn (group_key, room, used, offered, done, low, low_at)
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN rule.group_rate_jobs IS NOT NULL THEN (
                               SELECT "jobq".admits_from(
                                          rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst, gate.paid_until)
                               FROM "jobq".gate WHERE gate.queue = of_queue AND gate.group_key = turn.group_key) END AS payable
                ) AS seen
                CROSS JOIN LATERAL (
                    (SELECT next.run_at FROM "jobq".job AS next
                     WHERE in_line AND next.queue = of_queue AND next.group_key <= turn.group_key AND next.state = 'waiting'
                       AND (next.group_key, next.id) >= (turn.group_key, turn.low)
                     ORDER BY next.group_key, next.id LIMIT 1)
                    UNION ALL
                    (SELECT next.run_at FROM "jobq".job AS next
                     WHERE NOT in_line AND next.queue = of_queue AND next.group_key = turn.group_key AND next.state = 'waiting'
                       AND next.run_at >= turn.low_at
                     ORDER BY next.run_at, next.id LIMIT 1)
                ) AS following
                WHERE turn.done AND (turn.room > turn.used OR seen.payable >= moment);
                moment_of_round := clock_timestamp();
            END IF;
            EXIT claiming WHEN one_by_one;
            EXIT WHEN way = 'lanes';
        END LOOP;
    END LOOP;
    IF total > 0 AND rule.rate_jobs IS NOT NULL THEN
        paid := paid + ceil(total * (rule.rate_seconds / rule.rate_jobs) * 1000000) * interval '1 microsecond';
        INSERT INTO "jobq".gate (queue, group_key, paid_until) VALUES (of_queue, '', paid)
        ON CONFLICT (queue, group_key) DO UPDATE SET paid_until = excluded.paid_until;
    END IF;
    IF total > 0 OR permits IS NULL OR permits > 0 THEN
        SELECT turn.due_at INTO next_turn FROM "jobq".job_turn AS turn
        WHERE turn.queue = of_queue AND turn.due_at >= turns_from AND turn.group_key <> ALL (left_out_groups)
        ORDER BY turn.due_at LIMIT 1;
        SELECT min(head.run_at),
               string_agg(concat_ws(' ', lane.n - 1, (extract(epoch FROM head.run_at) * 1000000)::bigint, head.id), ' ')
                   FILTER (WHERE head.run_at <= moment)
        INTO next_ready, lane_heads
        FROM unnest(ARRAY[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]::smallint[], lanes_since, lanes_since_ids)
             WITH ORDINALITY AS lane (priority, since, since_id, n)
        CROSS JOIN LATERAL (
            SELECT ready.run_at, ready.id FROM "jobq".job AS ready
            WHERE ready.queue = of_queue AND ready.priority = lane.priority AND ready.state = 'ready'
              AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
              AND ready.id <> ALL (left_out) AND coalesce(ready.group_key <> ALL (left_out_groups), true)
            ORDER BY ready.run_at, ready.id LIMIT 1
        ) AS head;
        seen := concat_ws(
            '|', seen, concat_ws(' ', turns_gone, CASE WHEN next_turn <= moment THEN (extract(epoch FROM next_turn) * 1000000)::bigint END),
            array_to_string(lane_counts, ' '), coalesce(lane_heads, ''));
    ELSE
        seen := NULL;
    END IF;
    IF permits IS NULL OR permits > total THEN
        next_at := least(next_turn, CASE WHEN wanted > 0 AND next_ready <= moment THEN moment + interval '250 milliseconds'
                                         ELSE next_ready END);
        IF next_at IS NOT NULL AND tokens <= total THEN
            next_at := greatest(
                next_at, "jobq".admits_from(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid));
        END IF;
    END IF;
    RETURN QUERY SELECT NULL::bigint, permits - total, NULL, of_queue, seen, NULL::integer, NULL::integer, NULL::integer,
                        CASE WHEN next_at > moment THEN extract(epoch FROM next_at - moment) WHEN next_at IS NOT NULL THEN 0 END
                            ::double precision,
                         CASE WHEN cardinality(running) <= 2000
                              THEN concat_ws(' ', concat(known_by, ':', number), array_to_string(running, ' ')) END,
                         false, NULL::bigint, false, NULL::boolean, NULL::integer;
END
$$;
CREATE FUNCTION jobq.drop_partitions(parent text, keep interval, most integer DEFAULT NULL::integer) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    AS $_$
DECLARE
    part text;
    dropped integer := 0;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'drop_partitions: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'drop_partitions: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
    END IF;
    FOR part IN
        SELECT child.relname
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
        WHERE pg_inherits.inhparent = to_regclass(format('%I.%I', 'jobq', parent))
          AND child.relname ~ ('^' || parent || '_[0-9]{8}$')
          AND (to_date(right(child.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= now() - keep
        ORDER BY child.relname
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I.%I', 'jobq', part);
            dropped := dropped + 1;
            RETURN NEXT part;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING '%', format('%s is not dropped: %s', part, SQLERRM);
        END;
        EXIT WHEN dropped >= most;
    END LOOP;
END
$_$;
CREATE FUNCTION jobq.enqueue(task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 5, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, key text DEFAULT NULL::text, key_holds text DEFAULT 'period'::text, key_period interval DEFAULT '7 days'::interval, on_conflict text DEFAULT 'return'::text, max_attempts integer DEFAULT 10, timeout interval DEFAULT NULL::interval, headers jsonb DEFAULT '{}'::jsonb, group_key text DEFAULT NULL::text, expires_in interval DEFAULT NULL::interval, key_scope text DEFAULT 'task'::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    longest constant double precision := 3155760000;
    problem text;
    entry record;
BEGIN
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
    entry := "jobq".enqueue_one(
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
$$;
CREATE FUNCTION jobq.enqueue_0002(task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 5, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, key text DEFAULT NULL::text, key_holds text DEFAULT 'period'::text, key_period interval DEFAULT '7 days'::interval, on_conflict text DEFAULT 'return'::text, max_attempts integer DEFAULT 10, timeout interval DEFAULT NULL::interval, headers jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT "jobq".enqueue(task, args, queue, priority, run_at, delay, key, key_holds, key_period, on_conflict, max_attempts, timeout,
                            headers)
$$;
CREATE FUNCTION jobq.enqueue_0005(task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 5, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, key text DEFAULT NULL::text, key_holds text DEFAULT 'period'::text, key_period interval DEFAULT '7 days'::interval, on_conflict text DEFAULT 'return'::text, max_attempts integer DEFAULT 10, timeout interval DEFAULT NULL::interval, headers jsonb DEFAULT '{}'::jsonb, group_key text DEFAULT NULL::text, expires_in interval DEFAULT NULL::interval) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT "jobq".enqueue(task, args, queue, priority, run_at, delay, key, key_holds, key_period, on_conflict, max_attempts, timeout,
                            headers, group_key, expires_in)
$$;
CREATE FUNCTION jobq.enqueue_keyed(tasks text[], args text[], queues text[], priorities integer[], run_ats timestamp with time zone[], delays double precision[], max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[], periods double precision[], on_conflicts text[], group_keys text[] DEFAULT NULL::text[], expires_ins double precision[] DEFAULT NULL::double precision[], scopes text[] DEFAULT NULL::text[]) RETURNS TABLE(ord integer, job_id bigint, created boolean, replaced boolean, other_task text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    fresh_snapshots constant boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
    total constant integer := coalesce(cardinality(tasks), 0);
    ids bigint[] := ARRAY(SELECT nextval('"jobq".job_id_seq') FROM generate_series(1, total));
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
                INSERT INTO "jobq".job_key AS taken (key, scope, task, job_id, holds, until)
                VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
                ON CONFLICT DO NOTHING;
                made[n] := FOUND;
                EXIT WHEN made[n];
                SELECT taken.job_id, taken.until, taken.holds, taken.task INTO holder, holder_until, holder_holds, holder_task
                FROM "jobq".job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                CONTINUE WHEN NOT FOUND;
                IF holder_until <= clock_timestamp() THEN
                    DELETE FROM "jobq".job_key AS taken
                    WHERE taken.key = keys[n] AND taken.scope = spaces[n] AND taken.until <= clock_timestamp();
                    CONTINUE;
                END IF;
                is_other := spaces[n] = '' AND holder_task IS DISTINCT FROM tasks[n];
                EXIT WHEN is_other;
                IF on_conflicts[n] = 'replace' THEN
                    PERFORM FROM "jobq".job AS waiting
                    WHERE waiting.id = holder
                      AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                    FOR NO KEY UPDATE;
                    found_one := FOUND;
                ELSIF on_conflicts[n] = 'return' AND holder_holds = 'until_started' THEN
                    PERFORM FROM "jobq".job AS waiting WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                ELSE
                    EXIT;
                END IF;
                PERFORM FROM "jobq".job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n] AND taken.job_id = holder;
                CONTINUE WHEN NOT FOUND;
            ELSE
                BEGIN
                    INSERT INTO "jobq".job_key AS taken (key, scope, task, job_id, holds, until)
                    VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
                    ON CONFLICT DO NOTHING;
                    made[n] := FOUND;
                    IF NOT made[n] THEN
                        SELECT taken.job_id, taken.until, taken.holds, taken.task INTO holder, holder_until, holder_holds, holder_task
                        FROM "jobq".job_key AS taken WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                        IF holder_until <= clock_timestamp() THEN
                            UPDATE "jobq".job_key AS taken
                            SET job_id = new_id, task = CASE WHEN spaces[n] = '' THEN tasks[n] END, holds = enqueue_keyed.holds[n],
                                until = expires
                            WHERE taken.key = keys[n] AND taken.scope = spaces[n];
                            made[n] := FOUND;
                        ELSIF spaces[n] = '' AND holder IS NOT NULL AND holder_task IS DISTINCT FROM tasks[n] THEN
                            is_other := true;
                        ELSIF on_conflicts[n] = 'replace' OR (on_conflicts[n] = 'return' AND holder_holds = 'until_started') THEN
                            IF on_conflicts[n] = 'replace' THEN
                                PERFORM FROM "jobq".job AS waiting
                                WHERE waiting.id = holder
                                  AND (waiting.key_until_started OR (waiting.state IN ('ready', 'waiting', 'parked') AND waiting.attempt = 0))
                                FOR NO KEY UPDATE;
                                found_one := FOUND;
                            ELSE
                                PERFORM FROM "jobq".job AS waiting
                                WHERE waiting.id = holder AND waiting.key_until_started FOR KEY SHARE;
                            END IF;
                            INSERT INTO "jobq".job_key AS taken (key, scope, task, job_id, holds, until)
                            VALUES (keys[n], spaces[n], CASE WHEN spaces[n] = '' THEN tasks[n] END, new_id, holds[n], expires)
                            ON CONFLICT DO NOTHING;
                            made[n] := FOUND;
                        END IF;
                    END IF;
                EXCEPTION WHEN serialization_failure OR unique_violation THEN
                    made[n] := false;
                    found_one := false;
                    CONTINUE WHEN tries < 3;
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
        DELETE FROM "jobq".job_key AS taken
        USING unnest(keys, ids, made) AS mine (key, id, made)
        WHERE taken.key = mine.key AND taken.job_id = mine.id AND mine.made;
        RETURN QUERY
            SELECT result.ord::integer, CASE WHEN mine.job IS NULL THEN result.job END, false, false, result.other
            FROM unnest(ids, made, on_conflicts, others) WITH ORDINALITY AS result (job, fresh, policy, other, ord)
            LEFT JOIN unnest(ids, made) AS mine (job, fresh) ON mine.job = result.job AND mine.fresh
            WHERE NOT result.fresh AND (result.policy = 'raise' OR result.other IS NOT NULL)
            ORDER BY result.ord;
        RETURN;
    END IF;
    FOR n IN 1..total LOOP
        CONTINUE WHEN NOT to_replace[n];
        UPDATE "jobq".job AS waiting
        SET args = enqueue_keyed.args[n]::jsonb, headers = enqueue_keyed.headers[n]::jsonb,
            state = CASE WHEN waiting.state = 'parked' THEN "jobq".entry_state(waiting.queue, waiting.group_key) ELSE waiting.state END,
            parked_claims = NULL,
            run_at = greatest(coalesce(run_ats[n], clock_timestamp() + delays[n] * interval '1 second'), clock_timestamp()),
            expires_at = clock_timestamp() + expires_ins[n] * interval '1 second'
        FROM (SELECT prior.run_at, prior.state = 'parked' AS parked FROM "jobq".job AS prior WHERE prior.id = ids[n]) AS former
        WHERE waiting.id = ids[n]
        RETURNING waiting.queue, waiting.group_key, former.run_at, former.parked INTO its_queue, its_group, was_due, was_parked;
        changed[n] := FOUND;
        IF changed[n] AND its_group IS NOT NULL THEN
            INSERT INTO "jobq".job_turn (queue, group_key, due_at)
            SELECT waiting.queue, waiting.group_key, waiting.run_at FROM "jobq".job AS waiting
            WHERE waiting.id = ids[n] AND waiting.state = 'waiting';
        END IF;
        IF changed[n] AND coalesce(current_setting('jobq.notify', true), '') <> 'off'
           AND (was_parked OR coalesce(run_ats[n], clock_timestamp() + coalesce(delays[n], 0) * interval '1 second') < was_due)
           AND ((SELECT last_value FROM "jobq".wake) <> 2 OR its_group IS NOT NULL) THEN
            PERFORM pg_notify('jobq', 'insert ' || its_queue);
        END IF;
    END LOOP;
    INSERT INTO "jobq".job (id, task, args, queue, priority, run_at, max_attempts, timeout, headers, key, key_holds,
                              key_until_started, key_scope, group_key, expires_at)
    SELECT input.id, input.task, input.args::jsonb, input.queue, input.priority,
           greatest(coalesce(input.run_at, clock_timestamp() + input.delay * interval '1 second'), clock_timestamp()),
           input.max_attempts, input.timeout, input.headers::jsonb, input.key, CASE WHEN input.key IS NOT NULL THEN input.holds END,
           input.key IS NOT NULL AND input.holds = 'until_started', CASE WHEN input.key IS NOT NULL THEN nullif(input.scope, 'task') END,
           input.group_key,
           clock_timestamp() + input.expires_in * interval '1 second'
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
$$;
CREATE FUNCTION jobq.enqueue_keyed_0002(tasks text[], args text[], queues text[], priorities integer[], run_ats timestamp with time zone[], delays double precision[], max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[], periods double precision[], on_conflicts text[]) RETURNS TABLE(ord integer, job_id bigint, created boolean, replaced boolean)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT made.ord, made.job_id, made.created, made.replaced
    FROM "jobq".enqueue_keyed(tasks, args, queues, priorities, run_ats, delays, max_attempts, timeouts, headers, keys, holds,
                                periods, on_conflicts) AS made
$$;
CREATE FUNCTION jobq.enqueue_keyed_0005(tasks text[], args text[], queues text[], priorities integer[], run_ats timestamp with time zone[], delays double precision[], max_attempts integer[], timeouts double precision[], headers text[], keys text[], holds text[], periods double precision[], on_conflicts text[], group_keys text[] DEFAULT NULL::text[], expires_ins double precision[] DEFAULT NULL::double precision[]) RETURNS TABLE(ord integer, job_id bigint, created boolean, replaced boolean)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT made.ord, made.job_id, made.created, made.replaced
    FROM "jobq".enqueue_keyed(tasks, args, queues, priorities, run_ats, delays, max_attempts, timeouts, headers, keys, holds,
                                periods, on_conflicts, group_keys, expires_ins) AS made
$$;
CREATE FUNCTION jobq.enqueue_one(task text, args jsonb, queue text, priority integer, run_at timestamp with time zone, delay double precision, max_attempts integer, timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text, group_key text DEFAULT NULL::text, expires_in double precision DEFAULT NULL::double precision, scope text DEFAULT 'task'::text, OUT job_id bigint, OUT created boolean, OUT replaced boolean, OUT other_task text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    job_id := nextval('"jobq".job_id_seq');
    created := key IS NULL;
    replaced := false;
    IF NOT created AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        INSERT INTO "jobq".job_key (key, scope, task, job_id, holds, until)
        VALUES (key, CASE WHEN scope = 'global' THEN '' ELSE task END, CASE WHEN scope = 'global' THEN task END, job_id, holds,
                CASE WHEN holds = 'period' THEN clock_timestamp() + period * interval '1 second' END)
        ON CONFLICT DO NOTHING;
        created := FOUND;
    END IF;
    IF NOT created THEN
        SELECT entry.job_id, entry.created, entry.replaced, entry.other_task INTO job_id, created, replaced, other_task
        FROM "jobq".enqueue_keyed(
            ARRAY[task], ARRAY[args::text], ARRAY[queue], ARRAY[priority], ARRAY[run_at], ARRAY[delay],
            ARRAY[max_attempts], ARRAY[timeout], ARRAY[headers::text], ARRAY[key], ARRAY[holds], ARRAY[period],
            ARRAY[on_conflict], ARRAY[group_key], ARRAY[expires_in], ARRAY[scope]) AS entry;
        RETURN;
    END IF;
    INSERT INTO "jobq".job (id, task, args, queue, priority, run_at, max_attempts, timeout, headers, key, key_holds,
                              key_until_started, key_scope, group_key, expires_at)
    VALUES (job_id, task, args, queue, priority,
            greatest(coalesce(run_at, clock_timestamp() + delay * interval '1 second'), clock_timestamp()),
            max_attempts, timeout, headers, key, CASE WHEN key IS NOT NULL THEN holds END,
            key IS NOT NULL AND holds = 'until_started', CASE WHEN key IS NOT NULL THEN nullif(scope, 'task') END, group_key,
            clock_timestamp() + expires_in * interval '1 second');
END
$$;
CREATE FUNCTION jobq.enqueue_one_0002(task text, args jsonb, queue text, priority integer, run_at timestamp with time zone, delay double precision, max_attempts integer, timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text, OUT job_id bigint, OUT created boolean, OUT replaced boolean) RETURNS record
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT made.job_id, made.created, made.replaced
    FROM "jobq".enqueue_one(task, args, queue, priority, run_at, delay, max_attempts, timeout, headers, key, holds, period,
                              on_conflict) AS made
$$;
CREATE FUNCTION jobq.enqueue_one_0005(task text, args jsonb, queue text, priority integer, run_at timestamp with time zone, delay double precision, max_attempts integer, timeout double precision, headers jsonb, key text, holds text, period double precision, on_conflict text, group_key text DEFAULT NULL::text, expires_in double precision DEFAULT NULL::double precision, OUT job_id bigint, OUT created boolean, OUT replaced boolean) RETURNS record
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT made.job_id, made.created, made.replaced
    FROM "jobq".enqueue_one(task, args, queue, priority, run_at, delay, max_attempts, timeout, headers, key, holds, period,
                              on_conflict, group_key, expires_in) AS made
$$;
CREATE FUNCTION jobq.enter_group() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    mark constant text := concat_ws(' ', TG_RELID, length(NEW.queue), NEW.queue, NEW.group_key);
BEGIN
    IF length(NEW.group_key) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'group_key => %: give 1 to 200 characters', quote_literal(left(NEW.group_key, 250))
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'group_key';
    END IF;
    IF NEW.state <> 'ready'
       OR NOT EXISTS (SELECT FROM "jobq".queue WHERE name = NEW.queue AND group_mode IS NOT NULL) THEN
        RETURN NEW;
    END IF;
    NEW.state := 'waiting';
    IF NEW.run_at > clock_timestamp() THEN
        INSERT INTO "jobq".job_turn (queue, group_key, due_at, from_id, from_at)
        VALUES (NEW.queue, NEW.group_key, NEW.run_at, NEW.id, NEW.run_at);
        PERFORM set_config('jobq.turn', 'later', true);
    ELSIF current_setting('jobq.turn', true) IS DISTINCT FROM mark OR NEW.run_at < now()
          OR NEW.id < nullif(current_setting('jobq.turn_from', true), '')::bigint THEN
        INSERT INTO "jobq".job_turn (queue, group_key, from_id, from_at)
        VALUES (NEW.queue, NEW.group_key, NEW.id, least(NEW.run_at, now()));
        PERFORM set_config('jobq.turn', mark, true), set_config('jobq.turn_from', NEW.id::text, true);
    END IF;
    RETURN NEW;
END
$$;
CREATE FUNCTION jobq.entry_state(of_queue text, of_group text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    SELECT CASE WHEN of_group IS NOT NULL
                 AND EXISTS (SELECT FROM "jobq".queue WHERE name = of_queue AND group_mode IS NOT NULL)
                THEN 'waiting' ELSE 'ready' END
$$;
CREATE FUNCTION jobq.make_partition(parent text, day date, most integer DEFAULT 20000) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $_$
DECLARE
    part constant text := parent || '_' || to_char(day, 'YYYYMMDD');
    rest constant text := parent || '_rest';
    since timestamptz := day::timestamp AT TIME ZONE 'UTC';
    until constant timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    last_one timestamptz;
    rows bigint;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'make_partition: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF to_regclass(format('%I.%I', 'jobq', part)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I.%I WHERE finished_at >= $1 AND finished_at < $2 LIMIT $3) AS counted',
                   'jobq', rest) INTO rows USING since, until, most + 1;
    IF rows > most AND until <= clock_timestamp() + interval '1 minute' THEN
        RETURN NULL;
    END IF;
    IF rows <= most AND since <= clock_timestamp() THEN
        EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', 'jobq', parent);
    END IF;
    EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', 'jobq', rest);
    IF rows > most THEN
        EXECUTE format('SELECT max(finished_at) FROM %I.%I WHERE finished_at >= $1 AND finished_at < $2',
                       'jobq', rest) INTO last_one USING since, until;
        since := greatest(date_trunc('second', last_one) + interval '1 second', least(clock_timestamp(), until) + interval '1 minute');
        IF since >= until THEN
            RETURN NULL;
        END IF;
    END IF;
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                   'jobq', part, parent);
    EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY FULL', 'jobq', part);
    IF rows <= most THEN
        EXECUTE format('WITH moved AS (DELETE FROM %1$I.%2$I WHERE finished_at >= $1 AND finished_at < $2 RETURNING *)'
                       ' INSERT INTO %1$I.%3$I SELECT * FROM moved', 'jobq', rest, part) USING since, until;
    END IF;
    EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                   'jobq', parent, part, since, until);
    RETURN part;
END
$_$;
CREATE FUNCTION jobq.make_partitions(days_ahead integer) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $$
DECLARE
    parent text;
    day date;
    part text;
BEGIN
    FOR day IN
        SELECT (now() AT TIME ZONE 'UTC')::date + step FROM generate_series(-1, days_ahead) AS step ORDER BY step < 0, step
    LOOP
        FOREACH parent IN ARRAY ARRAY['job_history_succeeded', 'job_history_failed', 'job_history_cancelled',
                                      'job_history_expired', 'job_attempt'] LOOP
            BEGIN
                part := "jobq".make_partition(parent, day);
                IF part IS NOT NULL THEN
                    RETURN NEXT part;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING '%', format('no partition of %s for %s: %s', parent, day, SQLERRM);
            END;
        END LOOP;
    END LOOP;
END
$$;
CREATE FUNCTION jobq.managed_running(of_queue text, ran bigint[], known_to bigint, by_group boolean, OUT ids bigint[], OUT groups jsonb) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
BEGIN
    WITH known AS MATERIALIZED (
        SELECT job.id, job.queue, job.state, job.managed, job.permit, job.group_key
        FROM "jobq".job AS job WHERE job.id = ANY (ran)
    ), now_running AS MATERIALIZED (
        SELECT known.id, known.group_key FROM known
        WHERE known.state = 'running' AND known.managed AND known.queue = of_queue AND known.permit <= known_to
        UNION ALL
        (SELECT later.id, later.group_key FROM "jobq".job AS later
         WHERE later.queue = of_queue AND later.state = 'running' AND later.managed AND later.permit > known_to
         ORDER BY later.queue, later.permit LIMIT 1000000)
        UNION ALL
        (SELECT plain.id, plain.group_key FROM "jobq".job AS plain
         WHERE plain.queue = of_queue AND plain.state = 'running' AND plain.managed AND plain.permit IS NULL
         ORDER BY plain.queue, plain.permit LIMIT 1000000)
    )
    SELECT coalesce((SELECT array_agg(one.id) FROM now_running AS one), '{}'),
           CASE WHEN by_group THEN coalesce((
               SELECT jsonb_object_agg(one.group_key, one.jobs)
               FROM (SELECT now_running.group_key, count(*) AS jobs FROM now_running
                     WHERE now_running.group_key IS NOT NULL GROUP BY now_running.group_key) AS one), '{}') END
    INTO ids, groups;
END
$$;
CREATE FUNCTION jobq.notify_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF ((SELECT last_value FROM "jobq".wake) <> 2 OR coalesce(current_setting('jobq.turn', true), '') <> '')
       AND coalesce(current_setting('jobq.notify', true), '') <> 'off' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, CASE WHEN count(*) OVER () > 100 THEN 'many' ELSE 'insert ' || fresh.queue END)
        FROM (SELECT DISTINCT inserted.queue FROM inserted WHERE inserted.state IN ('ready', 'waiting') LIMIT 101) AS fresh;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION jobq.oldest_program(at_revision text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT CASE WHEN at_revision BETWEEN '0005' AND '0008' THEN '0004' END
$$;
CREATE FUNCTION jobq.prune_rest(parent text, keep interval, most integer, jobs bigint[] DEFAULT NULL::bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    SET enable_seqscan TO 'on'
    AS $_$
DECLARE
    pruned bigint;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'prune_rest: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'prune_rest: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
    END IF;
    EXECUTE format('DELETE FROM %1$I.%2$I WHERE ctid = ANY (ARRAY('
                   'SELECT ctid FROM %1$I.%2$I WHERE finished_at <= now() - $1 AND ($3 IS NULL OR %3$I = ANY ($3)) LIMIT $2 '
                   'FOR UPDATE SKIP LOCKED))',
                   'jobq', parent || '_rest', CASE parent WHEN 'job_attempt' THEN 'job_id' ELSE 'id' END)
        USING keep, most, jobs;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$_$;
CREATE FUNCTION jobq.rest_due(parent text, keep interval, most integer, aside bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    SET enable_seqscan TO 'on'
    AS $_$
DECLARE
    ids bigint[];
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'rest_due: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'rest_due: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
    END IF;
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT id), ''{}'') FROM ('
                   'SELECT %3$I AS id FROM %1$I.%2$I WHERE finished_at <= now() - $1 AND %3$I <> ALL ($3) LIMIT $2 '
                   'FOR UPDATE SKIP LOCKED) AS old',
                   'jobq', parent || '_rest', CASE parent WHEN 'job_attempt' THEN 'job_id' ELSE 'id' END)
        INTO ids USING keep, most, aside;
    RETURN ids;
END
$_$;
CREATE FUNCTION jobq.take_key(key text, job_id bigint, holds text, task text DEFAULT NULL::text, scope text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
#variable_conflict use_column
DECLARE
    holder bigint;
    owner constant text := coalesce(take_key.task, (SELECT live.task FROM "jobq".job AS live WHERE live.id = take_key.job_id),
                                    (SELECT ended.task FROM "jobq".job_history AS ended WHERE ended.id = take_key.job_id LIMIT 1));
    shared constant boolean := coalesce(
        CASE WHEN take_key.task IS NULL THEN (SELECT live.key_scope FROM "jobq".job AS live WHERE live.id = take_key.job_id)
             ELSE take_key.scope END = 'global', false);
    space constant text := CASE WHEN shared THEN '' ELSE owner END;
BEGIN
    IF take_key.holds = 'period' THEN
        SELECT taken.job_id INTO holder FROM "jobq".job_key AS taken
        WHERE taken.key = take_key.key AND taken.scope = space AND (taken.until IS NULL OR taken.until > clock_timestamp());
        RETURN coalesce(holder, take_key.job_id);
    END IF;
    FOR n IN 1..3 LOOP
        INSERT INTO "jobq".job_key AS taken (key, scope, task, job_id, holds)
        VALUES (take_key.key, space, CASE WHEN shared THEN owner END, take_key.job_id, take_key.holds)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN take_key.job_id;
        END IF;
        SELECT taken.job_id INTO holder FROM "jobq".job_key AS taken
        WHERE taken.key = take_key.key AND taken.scope = space AND (taken.until IS NULL OR taken.until > clock_timestamp());
        IF FOUND THEN
            RETURN holder;
        END IF;
        DELETE FROM "jobq".job_key AS taken WHERE taken.key = take_key.key AND taken.scope = space AND taken.until <= clock_timestamp();
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN lock_not_available OR serialization_failure OR deadlock_detected THEN
    RETURN NULL;
END
$$;
CREATE TABLE jobq.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target jsonb NOT NULL,
    reason text,
    role text,
    address text,
    before jsonb,
    after jsonb
);
ALTER TABLE jobq.audit ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobq.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE jobq.chore (
    name text NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    last_run_at timestamp with time zone,
    last_worker uuid,
    last_report text,
    last_error text
);
CREATE TABLE jobq.gate (
    queue text NOT NULL,
    group_key text NOT NULL,
    max_running integer,
    paid_until timestamp with time zone,
    head_id bigint,
    head_at timestamp with time zone,
    CONSTRAINT gate_max_running_check CHECK ((max_running >= 1))
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0');
CREATE TABLE jobq.job (
    id bigint NOT NULL,
    claims integer DEFAULT 0 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 10 NOT NULL,
    priority smallint DEFAULT 5 NOT NULL,
    crashes smallint DEFAULT 0 NOT NULL,
    losses smallint DEFAULT 0 NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    task text NOT NULL,
    state text DEFAULT 'ready'::text NOT NULL,
    run_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    expires_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    progress jsonb,
    managed boolean DEFAULT false NOT NULL,
    key_holds text,
    key_until_started boolean DEFAULT false NOT NULL,
    run_alone boolean DEFAULT false NOT NULL,
    releases smallint DEFAULT 0 NOT NULL,
    parked_at timestamp with time zone,
    parked_reason text,
    parked_signature text,
    parked_claims integer,
    permit bigint,
    key_scope text,
    CONSTRAINT job_args_check CHECK ((jsonb_typeof(args) = 'object'::text)),
    CONSTRAINT job_headers_check CHECK ((jsonb_typeof(headers) = 'object'::text)),
    CONSTRAINT job_max_attempts_check CHECK ((max_attempts >= 1)),
    CONSTRAINT job_priority_check CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT job_queue_check CHECK (((length(queue) >= 1) AND (length(queue) <= 100))),
    CONSTRAINT job_run_at_check CHECK (((run_at >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (run_at < '9999-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT job_state_check CHECK ((state = ANY (ARRAY['ready'::text, 'running'::text, 'parked'::text, 'waiting'::text]))),
    CONSTRAINT job_task_check CHECK (((length(task) >= 1) AND (length(task) <= 200))),
    CONSTRAINT job_timeout_check CHECK (((timeout > (0)::double precision) AND (timeout <= ('3155760000'::bigint)::double precision)))
)
WITH (fillfactor='70', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0');
CREATE TABLE jobq.job_attempt (
    job_id bigint NOT NULL,
    claims integer NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL,
    worker_id uuid,
    started_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone,
    error_type text,
    message text,
    traceback text,
    CONSTRAINT job_attempt_outcome_check CHECK ((outcome = ANY (ARRAY['error'::text, 'timeout'::text, 'crashed'::text, 'cancelled'::text, 'failed'::text, 'released'::text])))
)
PARTITION BY RANGE (finished_at);
ALTER TABLE ONLY jobq.job_attempt REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_attempt_20261130 (
    job_id bigint CONSTRAINT job_attempt_job_id_not_null NOT NULL,
    claims integer CONSTRAINT job_attempt_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_attempt_attempt_not_null NOT NULL,
    outcome text CONSTRAINT job_attempt_outcome_not_null NOT NULL,
    worker_id uuid,
    started_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT now() CONSTRAINT job_attempt_finished_at_not_null NOT NULL,
    retry_at timestamp with time zone,
    error_type text,
    message text,
    traceback text,
    CONSTRAINT job_attempt_outcome_check CHECK ((outcome = ANY (ARRAY['error'::text, 'timeout'::text, 'crashed'::text, 'cancelled'::text, 'failed'::text, 'released'::text])))
);
ALTER TABLE ONLY jobq.job_attempt_20261130 REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_attempt_rest (
    job_id bigint CONSTRAINT job_attempt_job_id_not_null NOT NULL,
    claims integer CONSTRAINT job_attempt_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_attempt_attempt_not_null NOT NULL,
    outcome text CONSTRAINT job_attempt_outcome_not_null NOT NULL,
    worker_id uuid,
    started_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT now() CONSTRAINT job_attempt_finished_at_not_null NOT NULL,
    retry_at timestamp with time zone,
    error_type text,
    message text,
    traceback text,
    CONSTRAINT job_attempt_outcome_check CHECK ((outcome = ANY (ARRAY['error'::text, 'timeout'::text, 'crashed'::text, 'cancelled'::text, 'failed'::text, 'released'::text])))
);
ALTER TABLE ONLY jobq.job_attempt_rest REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history (
    id bigint NOT NULL,
    claims integer NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    priority smallint NOT NULL,
    crashes smallint NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    state text NOT NULL,
    run_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb NOT NULL,
    headers jsonb NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
)
PARTITION BY LIST (state);
ALTER TABLE ONLY jobq.job_history REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_cancelled (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
)
PARTITION BY RANGE (finished_at);
ALTER TABLE ONLY jobq.job_history_cancelled REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_cancelled_20261130 (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_cancelled_20261130 REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_cancelled_rest (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_cancelled_rest REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_expired (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
)
PARTITION BY RANGE (finished_at);
ALTER TABLE ONLY jobq.job_history_expired REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_expired_rest (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_expired_rest REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_failed (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
)
PARTITION BY RANGE (finished_at);
ALTER TABLE ONLY jobq.job_history_failed REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_failed_20261130 (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_failed_20261130 REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_failed_rest (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_failed_rest REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_succeeded (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
)
PARTITION BY RANGE (finished_at);
ALTER TABLE ONLY jobq.job_history_succeeded REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_succeeded_20261130 (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_succeeded_20261130 REPLICA IDENTITY FULL;
CREATE TABLE jobq.job_history_succeeded_rest (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    claims integer CONSTRAINT job_history_claims_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_history_max_attempts_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT job_history_crashes_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    state text CONSTRAINT job_history_state_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_history_created_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text
);
ALTER TABLE ONLY jobq.job_history_succeeded_rest REPLICA IDENTITY FULL;
ALTER TABLE jobq.job ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobq.job_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE jobq.job_key (
    job_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    until timestamp with time zone,
    key text NOT NULL,
    holds text NOT NULL,
    scope text DEFAULT ''::text NOT NULL,
    task text,
    CONSTRAINT job_key_holds_check CHECK ((holds = ANY (ARRAY['period'::text, 'until_finished'::text, 'until_started'::text]))),
    CONSTRAINT job_key_key_check CHECK (((length(key) >= 1) AND (length(key) <= 500))),
    CONSTRAINT job_key_until_check CHECK (((holds = 'period'::text) = (until IS NOT NULL)))
)
WITH (autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0');
CREATE TABLE jobq.job_turn (
    queue text NOT NULL,
    group_key text NOT NULL,
    due_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    from_id bigint DEFAULT 0 NOT NULL,
    from_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
)
WITH (fillfactor='70', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0');
ALTER TABLE ONLY jobq.job_turn REPLICA IDENTITY FULL;
CREATE TABLE jobq.operation (
    id bigint NOT NULL,
    up_to bigint NOT NULL,
    after_id bigint DEFAULT '-1'::integer NOT NULL,
    seen bigint DEFAULT 0 NOT NULL,
    done bigint DEFAULT 0 NOT NULL,
    refused bigint DEFAULT 0 NOT NULL,
    expected bigint,
    counted bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    progressed_at timestamp with time zone,
    finished_at timestamp with time zone,
    rate double precision,
    state text DEFAULT 'draft'::text NOT NULL,
    action text NOT NULL,
    filter text NOT NULL,
    actor text NOT NULL,
    role text,
    address text,
    reason text,
    error text,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    refusals jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT operation_action_check CHECK ((action = ANY (ARRAY['retry'::text, 'cancel'::text, 'snooze'::text, 'move'::text, 'delete'::text]))),
    CONSTRAINT operation_filter_check CHECK (((length(filter) >= 1) AND (length(filter) <= 2000))),
    CONSTRAINT operation_rate_check CHECK ((rate > (0)::double precision)),
    CONSTRAINT operation_state_check CHECK ((state = ANY (ARRAY['draft'::text, 'running'::text, 'paused'::text, 'cancelled'::text, 'done'::text, 'failed'::text])))
);
CREATE TABLE jobq.operation_batch (
    operation_id bigint NOT NULL,
    n integer NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    done bigint[] NOT NULL,
    refused jsonb NOT NULL
);
ALTER TABLE jobq.operation ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobq.operation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE SEQUENCE jobq.permit
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE jobq.queue (
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_at timestamp with time zone,
    paused_by text,
    pause_reason text,
    max_running integer,
    rate_jobs integer,
    rate_seconds double precision,
    rate_burst integer,
    group_mode text,
    group_limit integer,
    group_retry text,
    group_rate_jobs integer,
    group_rate_seconds double precision,
    group_rate_burst integer,
    changed_at timestamp with time zone,
    CONSTRAINT queue_group_limit_check CHECK ((((group_limit >= 1) AND (group_mode IS NOT NULL) AND (group_mode <> 'ordered'::text)) OR (group_limit IS NULL))),
    CONSTRAINT queue_group_mode_check CHECK ((group_mode = ANY (ARRAY['ordered'::text, 'limited'::text, 'fair'::text]))),
    CONSTRAINT queue_group_rate_check CHECK ((((group_rate_jobs IS NULL) AND (group_rate_seconds IS NULL) AND (group_rate_burst IS NULL)) OR ((group_mode IS NOT NULL) AND (group_rate_jobs IS NOT NULL) AND (group_rate_seconds IS NOT NULL) AND (group_rate_burst IS NOT NULL) AND (group_rate_jobs >= 1) AND (group_rate_seconds > (0)::double precision) AND (group_rate_burst >= 1)))),
    CONSTRAINT queue_group_retry_check CHECK ((((group_retry = ANY (ARRAY['hold'::text, 'pass'::text])) AND (group_mode IS NOT NULL) AND (group_mode = 'ordered'::text)) OR (group_retry IS NULL))),
    CONSTRAINT queue_max_running_check CHECK ((max_running >= 1)),
    CONSTRAINT queue_rate_check CHECK ((((rate_jobs IS NULL) AND (rate_seconds IS NULL) AND (rate_burst IS NULL)) OR ((rate_jobs IS NOT NULL) AND (rate_seconds IS NOT NULL) AND (rate_burst IS NOT NULL) AND (rate_jobs >= 1) AND (rate_seconds > (0)::double precision) AND (rate_burst >= 1)))),
    CONSTRAINT queue_rate_seconds_check CHECK (((rate_seconds <= ('3155760000'::bigint)::double precision) AND (group_rate_seconds <= ('3155760000'::bigint)::double precision)))
);
CREATE TABLE jobq.rollup_mark (
    at timestamp with time zone NOT NULL,
    pages bigint NOT NULL,
    part text NOT NULL
);
CREATE TABLE jobq.rollup_queue (
    span integer NOT NULL,
    at timestamp with time zone NOT NULL,
    succeeded integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    cancelled integer DEFAULT 0 NOT NULL,
    expired integer DEFAULT 0 NOT NULL,
    ready integer,
    oldest_ready_seconds double precision,
    queue text NOT NULL,
    waits integer[] DEFAULT '{}'::integer[] NOT NULL,
    runs integer[] DEFAULT '{}'::integer[] NOT NULL
);
CREATE TABLE jobq.rollup_task (
    span integer NOT NULL,
    at timestamp with time zone NOT NULL,
    succeeded integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    cancelled integer DEFAULT 0 NOT NULL,
    expired integer DEFAULT 0 NOT NULL,
    task text NOT NULL,
    waits integer[] DEFAULT '{}'::integer[] NOT NULL,
    runs integer[] DEFAULT '{}'::integer[] NOT NULL
);
CREATE TABLE jobq.schedule (
    next_at timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    last_tick timestamp with time zone,
    last_job_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_at timestamp with time zone,
    withdrawn_at timestamp with time zone,
    every interval,
    timeout double precision,
    max_attempts integer DEFAULT 10 NOT NULL,
    max_missed integer DEFAULT 100 NOT NULL,
    priority smallint DEFAULT 5 NOT NULL,
    name text NOT NULL,
    task text NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    cron text,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    missed text DEFAULT 'last'::text NOT NULL,
    source text DEFAULT 'run time'::text NOT NULL,
    app text,
    made_by text,
    tick_argument text,
    paused_by text,
    pause_reason text,
    last_error text,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT schedule_json_check CHECK (((jsonb_typeof(args) = 'object'::text) AND (jsonb_typeof(headers) = 'object'::text))),
    CONSTRAINT schedule_max_missed_check CHECK (((max_missed >= 1) AND (max_missed <= 10000))),
    CONSTRAINT schedule_missed_check CHECK ((missed = ANY (ARRAY['skip'::text, 'last'::text, 'all'::text]))),
    CONSTRAINT schedule_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT schedule_source_check CHECK ((source = ANY (ARRAY['code'::text, 'run time'::text]))),
    CONSTRAINT schedule_when_check CHECK (((cron IS NULL) <> (every IS NULL)))
);
CREATE TABLE jobq.schedule_tick (
    tick timestamp with time zone NOT NULL,
    inserted_at timestamp with time zone DEFAULT now() NOT NULL,
    job_id bigint NOT NULL,
    schedule text NOT NULL
);
CREATE TABLE jobq.schema_version (
    version_num character varying(32) NOT NULL
);
CREATE SEQUENCE jobq.wake
    AS smallint
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    MAXVALUE 3
    CACHE 1;
CREATE TABLE jobq.web_user (
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    password_hash text NOT NULL,
    CONSTRAINT web_user_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT web_user_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'operator'::text, 'admin'::text])))
);
CREATE TABLE jobq.worker (
    id uuid NOT NULL,
    lock_key bigint NOT NULL,
    lock_server_start timestamp with time zone,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    beats bigint DEFAULT 0 NOT NULL,
    pid integer NOT NULL,
    slots integer NOT NULL,
    running integer DEFAULT 0 NOT NULL,
    state text DEFAULT 'starting'::text NOT NULL,
    host text NOT NULL,
    version text NOT NULL,
    app text,
    queues text[],
    tasks text[] DEFAULT '{}'::text[] NOT NULL,
    asked text,
    rss bigint,
    schedules text[] DEFAULT '{}'::text[] NOT NULL,
    signatures text[] DEFAULT '{}'::text[] NOT NULL,
    problems jsonb DEFAULT '[]'::jsonb NOT NULL,
    lease double precision,
    CONSTRAINT worker_asked_check CHECK ((asked = ANY (ARRAY['quiet'::text, 'stop'::text]))),
    CONSTRAINT worker_state_check CHECK ((state = ANY (ARRAY['starting'::text, 'running'::text, 'quiet'::text, 'draining'::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0');
ALTER TABLE ONLY jobq.job_attempt ATTACH PARTITION jobq.job_attempt_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY jobq.job_attempt ATTACH PARTITION jobq.job_attempt_rest DEFAULT;
ALTER TABLE ONLY jobq.job_history ATTACH PARTITION jobq.job_history_cancelled FOR VALUES IN ('cancelled');
ALTER TABLE ONLY jobq.job_history_cancelled ATTACH PARTITION jobq.job_history_cancelled_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY jobq.job_history_cancelled ATTACH PARTITION jobq.job_history_cancelled_rest DEFAULT;
ALTER TABLE ONLY jobq.job_history ATTACH PARTITION jobq.job_history_expired FOR VALUES IN ('expired');
ALTER TABLE ONLY jobq.job_history_expired ATTACH PARTITION jobq.job_history_expired_rest DEFAULT;
ALTER TABLE ONLY jobq.job_history ATTACH PARTITION jobq.job_history_failed FOR VALUES IN ('failed');
ALTER TABLE ONLY jobq.job_history_failed ATTACH PARTITION jobq.job_history_failed_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY jobq.job_history_failed ATTACH PARTITION jobq.job_history_failed_rest DEFAULT;
ALTER TABLE ONLY jobq.job_history ATTACH PARTITION jobq.job_history_succeeded FOR VALUES IN ('succeeded');
ALTER TABLE ONLY jobq.job_history_succeeded ATTACH PARTITION jobq.job_history_succeeded_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY jobq.job_history_succeeded ATTACH PARTITION jobq.job_history_succeeded_rest DEFAULT;
INSERT INTO jobq.audit VALUES
	(1, '2026-11-30 13:18:58.15824+00', 'ann', 'cancel', '{"ids": [7]}', NULL, NULL, NULL, '{"state": "scheduled"}', '{"state": "cancelled"}'),
	(2, '2026-11-30 13:18:58.744191+00', 'ann', 'configure', '{"queue": "in-order"}', NULL, NULL, NULL, '{"groups": null}', '{"groups": "ordered"}'),
	(3, '2026-11-30 13:18:58.777529+00', 'ann', 'configure', '{"queue": "limited"}', NULL, NULL, NULL, '{"rate": null, "burst": null, "limit": null}', '{"rate": "1000/s", "burst": 1, "limit": 2}');
INSERT INTO jobq.chore VALUES
	('partitions', '2026-11-30 13:18:58.919463+00', NULL, NULL, 'made 0', NULL);
INSERT INTO jobq.job VALUES
	(8, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.580131+00', '2026-11-30 13:18:58.579474+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"note": "plain"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(9, 0, 0, 3, 1, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.59674+00', '2026-11-30 13:18:58.596008+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"note": "first"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(10, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.604051+00', '2026-11-30 13:18:58.603494+00', NULL, NULL, NULL, NULL, NULL, 'live', NULL, '{"note": "keyed"}', '{}', NULL, false, 'until_finished', false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(11, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.605318+00', '2026-11-30 13:18:58.604912+00', NULL, NULL, NULL, NULL, NULL, 'started', NULL, '{"note": "debounced"}', '{}', NULL, false, 'until_started', true, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(12, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.609619+00', '2026-11-30 13:18:58.608828+00', NULL, NULL, NULL, NULL, NULL, 'all', NULL, '{"note": "global key"}', '{}', NULL, false, 'until_finished', false, false, 0, NULL, NULL, NULL, NULL, NULL, 'global'),
	(13, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '9000-01-01 00:00:00+00', '2026-11-30 13:18:58.617163+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"note": "far away"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(14, 0, 0, 10, 5, 0, 0, 'default', 'record', 'ready', '2026-11-30 13:18:58.623814+00', '2026-11-30 13:18:58.623478+00', NULL, NULL, NULL, NULL, 30, NULL, NULL, '{"note": "headers"}', '{"trace": "x"}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(15, 0, 0, 10, 5, 0, 0, 'in-order', 'in_order', 'waiting', '2026-11-30 13:18:58.778507+00', '2026-11-30 13:18:58.77825+00', NULL, NULL, NULL, NULL, NULL, NULL, 'g', '{"note": "group 0"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(16, 0, 0, 10, 5, 0, 0, 'in-order', 'in_order', 'waiting', '2026-11-30 13:18:58.811763+00', '2026-11-30 13:18:58.81158+00', NULL, NULL, NULL, NULL, NULL, NULL, 'g', '{"note": "group 1"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(17, 0, 0, 10, 5, 0, 0, 'in-order', 'in_order', 'waiting', '2026-11-30 13:18:58.818436+00', '2026-11-30 13:18:58.818263+00', NULL, NULL, NULL, NULL, NULL, NULL, 'g', '{"note": "group 2"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(18, 0, 0, 10, 5, 0, 0, 'limited', 'record', 'ready', '2026-11-30 13:18:58.827635+00', '2026-11-30 13:18:58.827469+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"note": "limited"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(19, 0, 0, 10, 5, 0, 0, 'paused', 'record', 'ready', '2026-11-30 13:18:58.83963+00', '2026-11-30 13:18:58.839457+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"note": "paused"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(20, 1, 1, 10, 5, 0, 0, 'default', 'record', 'running', '2026-11-30 13:18:58.898025+00', '2026-11-30 13:18:58.897885+00', '2026-11-30 00:00:00+00', NULL, NULL, '00000000-0000-0000-0000-00000000dead', NULL, NULL, NULL, '{"note": "of a dead worker"}', '{}', NULL, false, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
	(21, 0, 0, 10, 5, 0, 0, 'default', 'unknown', 'parked', '2026-11-30 13:18:58.901325+00', '2026-11-30 13:18:58.900807+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', '{}', NULL, false, NULL, false, false, 0, '2026-11-30 00:00:00+00', 'no such task', NULL, NULL, NULL, NULL);
INSERT INTO jobq.job_attempt_20261130 VALUES
	(5, 1, 1, 'error', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', '2026-11-30 13:18:58.286179+00', '2026-11-30 13:18:58.286294+00', NULL, 'RuntimeError', 'attempt 1 fails', 'Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 79, in fail_until
    raise RuntimeError(f"attempt {now} fails")
RuntimeError: attempt 1 fails
'),
	(6, 1, 1, 'error', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', '2026-11-30 13:18:58.30835+00', '2026-11-30 13:18:58.308472+00', '2026-11-30 13:18:58.323078+00', 'RuntimeError', 'attempt 1 fails', 'Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 79, in fail_until
    raise RuntimeError(f"attempt {now} fails")
RuntimeError: attempt 1 fails
');
INSERT INTO jobq.job_history_cancelled_20261130 VALUES
	(7, 0, 0, 10, 5, 0, 'default', 'record', 'cancelled', '2026-11-30 14:18:58.140569+00', '2026-11-30 13:18:58.140375+00', NULL, '2026-11-30 13:18:58.15299+00', NULL, NULL, NULL, NULL, 'cancelled by ann', '{"note": "cancelled"}', '{}', NULL, NULL, NULL);
INSERT INTO jobq.job_history_failed_20261130 VALUES
	(5, 1, 1, 1, 5, 0, 'default', 'fail_until', 'failed', '2026-11-30 13:18:58.136218+00', '2026-11-30 13:18:58.135917+00', '2026-11-30 13:18:58.286179+00', '2026-11-30 13:18:58.286294+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, NULL, NULL, 'attempt 1 fails', '{"attempt": 5}', '{}', NULL, NULL, NULL);
INSERT INTO jobq.job_history_succeeded_20261130 VALUES
	(1, 1, 1, 10, 5, 0, 'default', 'record', 'succeeded', '2026-11-30 13:18:58.10795+00', '2026-11-30 13:18:58.106598+00', '2026-11-30 13:18:58.196464+00', '2026-11-30 13:18:58.218737+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, NULL, NULL, NULL, '{"note": "done 0"}', '{}', '"done 0"', NULL, NULL),
	(2, 1, 1, 10, 5, 0, 'default', 'record', 'succeeded', '2026-11-30 13:18:58.120386+00', '2026-11-30 13:18:58.120032+00', '2026-11-30 13:18:58.236681+00', '2026-11-30 13:18:58.239147+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, NULL, NULL, NULL, '{"note": "done 1"}', '{}', '"done 1"', NULL, NULL),
	(3, 1, 1, 10, 5, 0, 'default', 'record', 'succeeded', '2026-11-30 13:18:58.121461+00', '2026-11-30 13:18:58.121213+00', '2026-11-30 13:18:58.252821+00', '2026-11-30 13:18:58.256854+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, NULL, NULL, NULL, '{"note": "done 2"}', '{}', '"done 2"', NULL, NULL),
	(4, 1, 1, 10, 5, 0, 'default', 'record', 'succeeded', '2026-11-30 13:18:58.1307+00', '2026-11-30 13:18:58.125579+00', '2026-11-30 13:18:58.266929+00', '2026-11-30 13:18:58.269723+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, 'period', NULL, NULL, '{"note": "keyed, done"}', '{}', '"keyed, done"', 'period', NULL),
	(6, 2, 2, 10, 5, 0, 'default', 'fail_until', 'succeeded', '2026-11-30 13:18:58.323078+00', '2026-11-30 13:18:58.138964+00', '2026-11-30 13:18:58.325419+00', '2026-11-30 13:18:58.325624+00', '2b3dbcba-cf5a-4093-b529-3494f7e8a069', NULL, NULL, NULL, NULL, '{"attempt": 2}', '{}', '2', NULL, NULL);
INSERT INTO jobq.job_key VALUES
	(10, '2026-11-30 13:18:58.603494+00', NULL, 'live', 'until_finished', 'record', NULL),
	(11, '2026-11-30 13:18:58.604912+00', NULL, 'started', 'until_started', 'record', NULL),
	(12, '2026-11-30 13:18:58.608828+00', NULL, 'all', 'until_finished', '', 'record'),
	(4, '2026-11-30 13:18:58.125579+00', '9000-01-01 00:00:00+00', 'period', 'period', 'record', NULL);
INSERT INTO jobq.job_turn VALUES
	('in-order', 'g', '2026-11-30 13:18:58.779221+00', 15, '2026-11-30 13:18:58.77825+00'),
	('in-order', 'g', '2026-11-30 13:18:58.812059+00', 16, '2026-11-30 13:18:58.81158+00'),
	('in-order', 'g', '2026-11-30 13:18:58.81907+00', 17, '2026-11-30 13:18:58.818263+00');
INSERT INTO jobq.operation VALUES
	(1, 10, -1, 0, 1, 0, NULL, 0, '2026-11-30 13:18:58.912278+00', NULL, NULL, NULL, NULL, 'done', 'retry', 'state:failed', 'ann', NULL, NULL, NULL, NULL, '{}', '{}');
INSERT INTO jobq.operation_batch VALUES
	(1, 1, '2026-11-30 13:18:58.91546+00', '{1}', '{}');
INSERT INTO jobq.queue VALUES
	('in-order', '2026-11-30 13:18:58.655757+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'ordered', NULL, NULL, NULL, NULL, NULL, '2026-11-30 13:18:58.663271+00'),
	('limited', '2026-11-30 13:18:58.744557+00', NULL, NULL, NULL, 2, 1000, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-30 13:18:58.747723+00'),
	('paused', '2026-11-30 13:18:58.830713+00', '2026-11-30 00:00:00+00', 'ann', 'for the test', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobq.rollup_queue VALUES
	(60, '2026-11-30 00:00:00+00', 3, 0, 0, 0, NULL, NULL, '', '{}', '{}');
INSERT INTO jobq.rollup_task VALUES
	(60, '2026-11-30 00:00:00+00', 3, 0, 0, 0, 'record', '{}', '{}');
INSERT INTO jobq.schedule VALUES
	('9000-01-01 00:00:00+00', NULL, NULL, '2026-11-30 13:18:58.88784+00', '2026-11-30 13:18:58.88784+00', NULL, NULL, NULL, NULL, 10, 100, 5, 'nightly', 'record', 'default', '0 3 * * *', 'UTC', 'last', 'run time', NULL, 'ann', NULL, NULL, NULL, NULL, '{"note": "nightly"}', '{}'),
	('1970-01-01 00:00:00+00', NULL, NULL, '2026-11-30 13:18:58.896161+00', '2026-11-30 13:18:58.896161+00', '2026-11-30 00:00:00+00', NULL, '01:00:00', NULL, 10, 100, 5, 'hourly', 'record', 'default', NULL, 'UTC', 'last', 'code', 'app:q', NULL, NULL, 'ann', NULL, NULL, '{"note": "hourly"}', '{}');
INSERT INTO jobq.schedule_tick VALUES
	('2026-11-29 03:00:00+00', '2026-11-30 13:18:58.896751+00', 1, 'nightly');
INSERT INTO jobq.schema_version VALUES
	('0008');
INSERT INTO jobq.web_user VALUES
	('2026-11-30 13:18:58.91147+00', '2026-11-30 13:18:58.91147+00', 'ann', 'admin', 'x');
INSERT INTO jobq.worker VALUES
	('00000000-0000-0000-0000-00000000dead', 7, NULL, '2026-11-30 00:00:00+00', '2026-11-30 00:00:00+00', 0, 4711, 4, 0, 'running', 'gone', '0.1.0', NULL, NULL, '{record}', NULL, NULL, '{}', '{}', '[]', NULL);
SELECT pg_catalog.setval('jobq.audit_id_seq', 3, true);
SELECT pg_catalog.setval('jobq.job_id_seq', 21, true);
SELECT pg_catalog.setval('jobq.operation_id_seq', 1, true);
SELECT pg_catalog.setval('jobq.permit', 1, false);
SELECT pg_catalog.setval('jobq.wake', 1, false);
ALTER TABLE ONLY jobq.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY jobq.chore
    ADD CONSTRAINT chore_pkey PRIMARY KEY (name);
ALTER TABLE ONLY jobq.gate
    ADD CONSTRAINT gate_pkey PRIMARY KEY (queue, group_key);
ALTER TABLE ONLY jobq.job_key
    ADD CONSTRAINT job_key_pkey PRIMARY KEY (key, scope);
ALTER TABLE ONLY jobq.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);
ALTER TABLE ONLY jobq.operation_batch
    ADD CONSTRAINT operation_batch_pkey PRIMARY KEY (operation_id, n);
ALTER TABLE ONLY jobq.operation
    ADD CONSTRAINT operation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY jobq.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (name);
ALTER TABLE ONLY jobq.rollup_mark
    ADD CONSTRAINT rollup_mark_pkey PRIMARY KEY (part, at);
ALTER TABLE ONLY jobq.rollup_queue
    ADD CONSTRAINT rollup_queue_pkey PRIMARY KEY (span, at, queue);
ALTER TABLE ONLY jobq.rollup_task
    ADD CONSTRAINT rollup_task_pkey PRIMARY KEY (span, at, task);
ALTER TABLE ONLY jobq.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (name);
ALTER TABLE ONLY jobq.schedule_tick
    ADD CONSTRAINT schedule_tick_pkey PRIMARY KEY (schedule, tick);
ALTER TABLE ONLY jobq.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY jobq.web_user
    ADD CONSTRAINT web_user_pkey PRIMARY KEY (name);
ALTER TABLE ONLY jobq.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);
CREATE INDEX gate_limit_idx ON jobq.gate USING btree (queue) WHERE (max_running IS NOT NULL);
CREATE INDEX job_attempt_job_id_idx ON ONLY jobq.job_attempt USING btree (job_id);
CREATE INDEX job_attempt_20261130_job_id_idx ON jobq.job_attempt_20261130 USING btree (job_id);
CREATE INDEX job_attempt_rest_job_id_idx ON jobq.job_attempt_rest USING btree (job_id);
CREATE INDEX job_claim_idx ON jobq.job USING btree (queue, priority, run_at, id) WHERE (state = 'ready'::text);
CREATE INDEX job_expires_idx ON jobq.job USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (state <> 'running'::text));
CREATE INDEX job_grouped_idx ON jobq.job USING btree (queue, id) WHERE ((state = 'ready'::text) AND (group_key IS NOT NULL));
CREATE INDEX job_history_cancelled_finished_idx ON ONLY jobq.job_history_cancelled USING btree (finished_at, id);
CREATE INDEX job_history_cancelled_20261130_finished_at_id_idx ON jobq.job_history_cancelled_20261130 USING btree (finished_at, id);
CREATE INDEX job_history_id_idx ON ONLY jobq.job_history USING btree (id);
CREATE INDEX job_history_cancelled_id_idx ON ONLY jobq.job_history_cancelled USING btree (id);
CREATE INDEX job_history_cancelled_20261130_id_idx ON jobq.job_history_cancelled_20261130 USING btree (id);
CREATE INDEX job_history_cancelled_rest_finished_at_id_idx ON jobq.job_history_cancelled_rest USING btree (finished_at, id);
CREATE INDEX job_history_cancelled_rest_id_idx ON jobq.job_history_cancelled_rest USING btree (id);
CREATE INDEX job_history_expired_finished_idx ON ONLY jobq.job_history_expired USING btree (finished_at, id);
CREATE INDEX job_history_expired_id_idx ON ONLY jobq.job_history_expired USING btree (id);
CREATE INDEX job_history_expired_rest_finished_at_id_idx ON jobq.job_history_expired_rest USING btree (finished_at, id);
CREATE INDEX job_history_expired_rest_id_idx ON jobq.job_history_expired_rest USING btree (id);
CREATE INDEX job_history_failed_finished_idx ON ONLY jobq.job_history_failed USING btree (finished_at, id);
CREATE INDEX job_history_failed_20261130_finished_at_id_idx ON jobq.job_history_failed_20261130 USING btree (finished_at, id);
CREATE INDEX job_history_failed_id_idx ON ONLY jobq.job_history_failed USING btree (id);
CREATE INDEX job_history_failed_20261130_id_idx ON jobq.job_history_failed_20261130 USING btree (id);
CREATE INDEX job_history_failed_rest_finished_at_id_idx ON jobq.job_history_failed_rest USING btree (finished_at, id);
CREATE INDEX job_history_failed_rest_id_idx ON jobq.job_history_failed_rest USING btree (id);
CREATE INDEX job_history_succeeded_id_idx ON ONLY jobq.job_history_succeeded USING btree (id);
CREATE INDEX job_history_succeeded_20261130_id_idx ON jobq.job_history_succeeded_20261130 USING btree (id);
CREATE INDEX job_history_succeeded_rest_id_idx ON jobq.job_history_succeeded_rest USING btree (id);
CREATE INDEX job_key_until_idx ON jobq.job_key USING btree (until) WHERE (until IS NOT NULL);
CREATE INDEX job_managed_idx ON jobq.job USING btree (queue, group_key) WHERE ((state = 'running'::text) AND managed);
CREATE INDEX job_parked_idx ON jobq.job USING btree (task, priority, run_at, id) WHERE (parked_at IS NOT NULL);
CREATE INDEX job_permit_idx ON jobq.job USING btree (queue, permit) WHERE ((state = 'running'::text) AND managed);
CREATE INDEX job_running_idx ON jobq.job USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX job_turn_idx ON jobq.job_turn USING btree (queue, due_at);
CREATE INDEX job_waiting_due_idx ON jobq.job USING btree (queue, group_key, run_at, id) WHERE (state = 'waiting'::text);
CREATE INDEX job_waiting_idx ON jobq.job USING btree (queue, group_key, id) WHERE (state = 'waiting'::text);
CREATE INDEX schedule_next_idx ON jobq.schedule USING btree (next_at) WHERE ((paused_at IS NULL) AND (withdrawn_at IS NULL));
CREATE INDEX schedule_tick_inserted_at_idx ON jobq.schedule_tick USING btree (inserted_at);
ALTER INDEX jobq.job_attempt_job_id_idx ATTACH PARTITION jobq.job_attempt_20261130_job_id_idx;
ALTER INDEX jobq.job_attempt_job_id_idx ATTACH PARTITION jobq.job_attempt_rest_job_id_idx;
ALTER INDEX jobq.job_history_cancelled_finished_idx ATTACH PARTITION jobq.job_history_cancelled_20261130_finished_at_id_idx;
ALTER INDEX jobq.job_history_cancelled_id_idx ATTACH PARTITION jobq.job_history_cancelled_20261130_id_idx;
ALTER INDEX jobq.job_history_id_idx ATTACH PARTITION jobq.job_history_cancelled_id_idx;
ALTER INDEX jobq.job_history_cancelled_finished_idx ATTACH PARTITION jobq.job_history_cancelled_rest_finished_at_id_idx;
ALTER INDEX jobq.job_history_cancelled_id_idx ATTACH PARTITION jobq.job_history_cancelled_rest_id_idx;
ALTER INDEX jobq.job_history_id_idx ATTACH PARTITION jobq.job_history_expired_id_idx;
ALTER INDEX jobq.job_history_expired_finished_idx ATTACH PARTITION jobq.job_history_expired_rest_finished_at_id_idx;
ALTER INDEX jobq.job_history_expired_id_idx ATTACH PARTITION jobq.job_history_expired_rest_id_idx;
ALTER INDEX jobq.job_history_failed_finished_idx ATTACH PARTITION jobq.job_history_failed_20261130_finished_at_id_idx;
ALTER INDEX jobq.job_history_failed_id_idx ATTACH PARTITION jobq.job_history_failed_20261130_id_idx;
ALTER INDEX jobq.job_history_id_idx ATTACH PARTITION jobq.job_history_failed_id_idx;
ALTER INDEX jobq.job_history_failed_finished_idx ATTACH PARTITION jobq.job_history_failed_rest_finished_at_id_idx;
ALTER INDEX jobq.job_history_failed_id_idx ATTACH PARTITION jobq.job_history_failed_rest_id_idx;
ALTER INDEX jobq.job_history_succeeded_id_idx ATTACH PARTITION jobq.job_history_succeeded_20261130_id_idx;
ALTER INDEX jobq.job_history_id_idx ATTACH PARTITION jobq.job_history_succeeded_id_idx;
ALTER INDEX jobq.job_history_succeeded_id_idx ATTACH PARTITION jobq.job_history_succeeded_rest_id_idx;
CREATE TRIGGER job_enter_group BEFORE INSERT ON jobq.job FOR EACH ROW WHEN ((new.group_key IS NOT NULL)) EXECUTE FUNCTION jobq.enter_group();
CREATE TRIGGER job_notify_insert AFTER INSERT ON jobq.job REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION jobq.notify_insert();
