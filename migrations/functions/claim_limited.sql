-- Claims up to `want` jobs of one queue that has a limit, a rate, or a rule for its groups. Exact under any concurrency: the
-- queue's claims follow one another, by an advisory lock that is held through the commit, and each statement below, in READ
-- COMMITTED, sees all that was committed before the lock was had. A step that picks rows in one statement and locks
-- them in another checks again what it picked them for: moves, snoozes and cancellations take no queue's lock.
--
-- Running jobs are themselves the permits: nothing has to be given back, so nothing can be lost. Each claim has a number, given
-- out under the lock, so the jobs of a later claim have a higher one in `permit`. Therefore a caller that knows which jobs ran
-- at claim N (`ran`) spares this one the dead index entries of what ran before: what runs now is what still runs of those, read
-- by their ids, and what has a number above N. Jobs that were claimed as plain ones and counted later have none, and are always
-- read. What the caller knows is void (`ran_by`) when the queue's row has changed or the server was started again.
--
-- The line of turns and the lanes are read from where _worker/lanes/cursor.py says (`turns_since`, `lanes_since`: microseconds since
-- 1970, and ids), the waiting jobs of a group from where its rate_state says (jobq/_postgres/tables/limits.py). Without these, from their beginnings.
--
-- If another holds the queue's lock, this does not wait, and returns one row with the task 'locked': what the caller does in the
-- same transaction is kept.
-- What the database refuses to claim (_worker/faults/suspects.py) is passed over: jobs of the lanes in `left_out`, whole groups in
-- `left_out_groups`. A caller that does not know yet what that is asks for one job `one_by_one`: then there is one thing that this
-- tries, and an INFO says before what that is, which arrives however it ends: `jobq job <lane> <run_at> <id>`, or
-- `jobq turn <due_at> <group>`, times in microseconds since 1970.
-- Returns the claimed jobs as ack_and_claim.sql does, and one row without an id: in `claims` how many running jobs the limit still
-- admits (NULL: any number), in `timeout` the seconds until more can be claimed (0: now; NULL: not before something is told), in
-- `args` what was seen (_worker/limited/ready_lines.py), in `headers` what runs: `ran_by`, then the ids; NULL: what the caller knows stands.
-- Plan: job_permit_idx, group_ready_idx, job_waiting_idx or job_waiting_due_idx, job_claim_idx, job_pkey; no Sort of jobs.
CREATE OR REPLACE FUNCTION {schema}.claim_limited(
    by_worker uuid, of_queue text, want integer, turns_since bigint DEFAULT 0, lanes_since bigint[] DEFAULT NULL,
    lanes_since_ids bigint[] DEFAULT NULL, ran_by text DEFAULT NULL, ran bigint[] DEFAULT NULL,
    left_out bigint[] DEFAULT '{}', left_out_groups text[] DEFAULT '{}', one_by_one boolean DEFAULT false
)
RETURNS TABLE (
    id bigint, claims integer, task text, queue text, args text, attempt integer, max_attempts integer, crashes integer,
    timeout double precision, headers text, expired boolean, started bigint, key_until_started boolean, run_alone boolean,
    releases integer
)
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    rule record;
    -- One time for jobs and rates. `moment_of_round` moves on, so that a turn given in one round is taken in the next.
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
    IF NOT pg_try_advisory_xact_lock('{schema}.group_ready'::regclass::oid::integer, hashtext(of_queue)) THEN
        RETURN QUERY SELECT NULL::bigint, NULL::integer, 'locked', of_queue, NULL, NULL::integer, NULL::integer, NULL::integer,
                            NULL::double precision, NULL, false, NULL::bigint, false, NULL::boolean, NULL::integer;
        RETURN;
    END IF;
    -- A turn that this very transaction has given may be taken below: what it inserts later needs another.
    PERFORM set_config('jobq.turn', '', true);
    SELECT settings.*, settings.xmin::text AS version INTO rule FROM {schema}.queue AS settings WHERE name = of_queue;
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
    -- Without a rule it is a cap of the worker that asks, which concerns no other worker.
    ruled := rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL;
    by_id := coalesce(rule.group_mode = 'ordered', false);
    in_line := by_id AND rule.group_retry IS DISTINCT FROM 'pass';
    IF ruled THEN
        counted := rule.max_running IS NOT NULL OR by_id OR rule.group_limit IS NOT NULL
                   OR rule.group_mode IS NOT NULL
                      AND EXISTS (SELECT FROM {schema}.rate_state WHERE rate_state.queue = of_queue AND rate_state.max_running IS NOT NULL);
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
        SELECT ids INTO running FROM {schema}.limited_running(of_queue, ran, known_to, false);
        permits := rule.max_running - cardinality(running);
        wanted := least(wanted, permits);
    END IF;
    IF rule.rate_jobs IS NOT NULL THEN
        SELECT rate_state.paid_until INTO paid FROM {schema}.rate_state WHERE queue = of_queue AND group_key = '';
        paid := greatest(paid, moment);
        -- No further ahead than claims can have brought it: else the clock was set back.
        IF paid > moment + rule.rate_burst * rule.rate_seconds / rule.rate_jobs * interval '1 second' + interval '1 millisecond' THEN
            paid := moment + rule.rate_burst * rule.rate_seconds / rule.rate_jobs * interval '1 second';
            UPDATE {schema}.rate_state SET paid_until = paid WHERE rate_state.queue = of_queue AND rate_state.group_key = '';
        END IF;
        tokens := {schema}.admits(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid, moment);
        wanted := least(wanted, tokens);
    END IF;

    number := known_to;
    IF ruled AND wanted > 0 THEN
        number := nextval('{schema}.permit');
    END IF;

    -- Jobs that came as ready before the queue had a rule for groups, or while that was being set, take their place first.
    IF rule.group_mode IS NOT NULL AND wanted > 0 THEN
        FOR n IN 1..20 LOOP
            IF one_by_one THEN
                SELECT late.group_key INTO way FROM {schema}.job AS late
                WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key <> ALL (left_out_groups)
                ORDER BY late.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
                IF FOUND THEN
                    RAISE INFO 'jobq turn 0 %', way;
                END IF;
            END IF;
            WITH entered AS (
                UPDATE {schema}.job SET state = 'waiting'
                WHERE id = ANY (ARRAY(
                    SELECT late.id FROM {schema}.job AS late
                    WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL
                      AND late.group_key <> ALL (left_out_groups)
                    ORDER BY late.id LIMIT CASE WHEN one_by_one THEN 1 ELSE 1000 END FOR NO KEY UPDATE SKIP LOCKED))
                RETURNING id, run_at, group_key
            )
            INSERT INTO {schema}.group_ready (queue, group_key, from_id, from_at)
            SELECT of_queue, group_key, min(id), min(run_at) FROM entered GROUP BY group_key;
            entering := FOUND;
            EXIT WHEN one_by_one OR NOT entering;
        END LOOP;
        IF one_by_one AND entering
           OR EXISTS (SELECT FROM {schema}.job AS late
                      WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL
                        AND late.group_key <> ALL (left_out_groups)) THEN
            -- More than fit into one go, or somebody has one locked; in order, or not at all.
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
                -- As ack_and_claim.sql reads them: priority by priority, only as many rows as it takes.
                WITH heads AS MATERIALIZED (
                    SELECT head.id, lane.n
                    FROM unnest(ARRAY[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]::smallint[], lanes_since, lanes_since_ids)
                         WITH ORDINALITY AS lane (priority, since, since_id, n)
                    CROSS JOIN LATERAL (
                        SELECT ready.id, ready.run_at FROM {schema}.job AS ready
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
                        (SELECT (extract(epoch FROM job.run_at) * 1000000)::bigint FROM {schema}.job WHERE job.id = got[1]), got[1];
                END IF;
                FOREACH reach IN ARRAY lane_of LOOP
                    lane_counts[reach] := lane_counts[reach] + 1;
                END LOOP;
            ELSE
                -- The groups that are next. One that has had many jobs one by one has many turns: read on until there are enough
                -- groups, or one of them would keep the others waiting. Each of its turns is read here once, and goes below.
                batch := CASE WHEN one_by_one THEN 1 ELSE greatest(wanted, 64) END;
                reach := batch;
                LOOP
                    WITH line AS MATERIALIZED (
                        SELECT turn.ctid AS tid, turn.group_key, turn.due_at, turn.from_id, turn.from_at
                        FROM {schema}.group_ready AS turn
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
                                                 FROM {schema}.group_ready AS turn WHERE turn.ctid = ANY (tids)), keys[1];
                END IF;

                IF counted THEN
                    -- After the turns, not before: a job whose end gave one of these turns is not to be counted.
                    SELECT ids, groups INTO running, held FROM {schema}.limited_running(of_queue, ran, known_to, true);
                END IF;
                IF rule.group_rate_jobs IS NOT NULL THEN
                    UPDATE {schema}.rate_state
                    SET paid_until = moment + rule.group_rate_burst * rule.group_rate_seconds / rule.group_rate_jobs * interval '1 second'
                    WHERE rate_state.queue = of_queue AND rate_state.group_key = ANY (keys)
                      AND rate_state.paid_until > moment + interval '1 millisecond'
                          + rule.group_rate_burst * rule.group_rate_seconds / rule.group_rate_jobs * interval '1 second';
                END IF;
                -- How many each group may begin, by its limit and by its rate; and from where on its jobs are to be read.
                SELECT array_agg(
                           greatest(0, least(
                               CASE WHEN by_id THEN 1 ELSE coalesce(rate_state.max_running, rule.group_limit, 1000000) END
                               - coalesce((held ->> turn.group_key)::integer, 0),
                               {schema}.admits(
                                   rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst,
                                   greatest(rate_state.paid_until, moment), moment)))::integer
                           ORDER BY turn.n),
                       array_agg(least(turn.from_id, CASE WHEN by_id THEN coalesce(rate_state.head_id, 0) ELSE 0 END) ORDER BY turn.n),
                       array_agg(least(turn.from_at, CASE WHEN in_line THEN '-infinity' ELSE coalesce(rate_state.head_at, '-infinity') END)
                                 ORDER BY turn.n),
                       array_agg(coalesce(CASE WHEN by_id THEN rate_state.head_id > turn.from_id ELSE rate_state.head_id IS NOT NULL END, false)
                                 OR coalesce(CASE WHEN in_line THEN rate_state.head_at IS NOT NULL ELSE rate_state.head_at > turn.from_at END, false)
                                 ORDER BY turn.n)
                INTO rooms, lows, low_ats, lowered
                FROM unnest(keys, froms, from_ats) WITH ORDINALITY AS turn (group_key, from_id, from_at, n)
                LEFT JOIN LATERAL (
                    SELECT rate_state.max_running, rate_state.paid_until, rate_state.head_id, rate_state.head_at FROM {schema}.rate_state
                    WHERE rate_state.queue = of_queue AND rate_state.group_key = turn.group_key LIMIT 1
                ) AS rate_state ON true;

                -- The heads of the groups, an even share each. An ordered group has one head, and a head that is not due
                -- (its retry is to come) holds the others back, or lets them pass. `<=` and the order say what `=` would, but no
                -- plan by job_pkey has that order.
                IF by_id THEN
                    SELECT array_agg(head.id), array_agg(head.n::integer) INTO picked, picked_of
                    FROM (
                        SELECT head.id, turn.n
                        FROM unnest(keys, rooms, lows) WITH ORDINALITY AS turn (group_key, room, low, n)
                        CROSS JOIN LATERAL (
                            SELECT first.id, first.run_at FROM {schema}.job AS first
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
                            SELECT first.id FROM {schema}.job AS first
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
                -- Since they were picked, somebody may have moved or put off one. What somebody has locked is not waited for: an
                -- operator who is about to cancel it may take as long as he likes. One by one and fenced off by LIMIT: joined to
                -- them, the jobs would be found by an index of waiting ones, which reads all that the queue has.
                SELECT coalesce(array_agg(free.id), '{}'), coalesce(array_agg(free.n), '{}') INTO got, got_of
                FROM (
                    SELECT free.id, one.n
                    FROM unnest(picked, picked_of) AS one (id, n)
                    CROSS JOIN LATERAL (
                        SELECT job.id, job.state, job.queue, job.group_key, job.run_at FROM {schema}.job AS job
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
                -- Where as many were found as are wanted, the groups behind the last were not come to: they keep their turns.
                last_offered := CASE WHEN cardinality(picked) >= wanted THEN picked_of[cardinality(picked_of)] END;
                done := ARRAY(SELECT room <= 0 OR last_offered IS NULL OR n <= last_offered
                              FROM unnest(rooms) WITH ORDINALITY AS one (room, n) ORDER BY n);
            END IF;

            RETURN QUERY
                WITH claimed AS (
                    UPDATE {schema}.job AS job
                    SET state = 'running', limited = ruled, permit = number, worker_id = by_worker, started_at = moment, progress = NULL,
                        --include count_claim
                    WHERE job.id = ANY (got)
                    RETURNING
                        --include claimed_columns
                )
                SELECT claimed.id, claimed.claims, claimed.task, claimed.queue, claimed.args::text, claimed.attempt,
                       claimed.max_attempts, claimed.crashes::integer, claimed.timeout, claimed.headers::text,
                       claimed.expires_at <= moment, (SELECT (extract(epoch FROM moment) * 1000000)::bigint), claimed.key_until_started,
                       claimed.run_alone, claimed.releases::integer
                FROM claimed;
            wanted := wanted - cardinality(got);
            total := total + cardinality(got);
            -- NULL as long as they have not been looked at.
            IF running IS NOT NULL THEN
                running := running || got;
            END IF;

            IF way = 'turns' THEN
                IF rule.group_rate_jobs IS NOT NULL AND cardinality(got) > 0 THEN
                    INSERT INTO {schema}.rate_state AS rate_state (queue, group_key, paid_until)
                    SELECT of_queue, used.group_key,
                           moment + ceil(used.jobs * (rule.group_rate_seconds / rule.group_rate_jobs) * 1000000) * interval '1 microsecond'
                    FROM unnest(keys, frees) AS used (group_key, jobs) WHERE used.jobs > 0
                    ON CONFLICT (queue, group_key) DO UPDATE
                    SET paid_until = greatest(rate_state.paid_until, moment) + (excluded.paid_until - moment);
                END IF;
                -- The groups' bounds: lowered where a turn stood for lower jobs, and raised now and then, so that neither dead
                -- index entries nor versions of the bound become many. An ordered group is never bounded above the job that was
                -- claimed last: if that comes back, it is the head again, whichever turn is read first.
                INSERT INTO {schema}.rate_state AS rate_state (queue, group_key, head_id, head_at, paid_until)
                SELECT of_queue, turn.group_key,
                       CASE WHEN by_id THEN CASE WHEN turn.room > 0 THEN least(
                           coalesce(turn.first, 9223372036854775807),
                           coalesce((SELECT next.id FROM {schema}.job AS next
                                     WHERE next.queue = of_queue AND next.group_key <= turn.group_key AND next.state = 'waiting'
                                       AND (next.group_key, next.id) >= (turn.group_key, turn.low)
                                     ORDER BY next.group_key, next.id LIMIT 1), 9223372036854775807)) ELSE turn.low END END,
                       CASE WHEN NOT in_line THEN CASE WHEN turn.room > 0 THEN coalesce(
                           (SELECT next.run_at FROM {schema}.job AS next
                            WHERE next.queue = of_queue AND next.group_key = turn.group_key AND next.state = 'waiting'
                              AND next.run_at >= turn.low_at
                            ORDER BY next.run_at, next.id LIMIT 1), moment) ELSE turn.low_at END END,
                       moment
                FROM unnest(keys, rooms, frees, done, lowered, lows, low_ats, firsts)
                     AS turn (group_key, room, used, done, lowered, low, low_at, first)
                WHERE turn.done AND (turn.lowered OR random() < turn.used / 32.0)
                ON CONFLICT (queue, group_key) DO UPDATE
                SET head_id = excluded.head_id, head_at = excluded.head_at,
                    paid_until = greatest(rate_state.paid_until, excluded.paid_until);
                DELETE FROM {schema}.group_ready
                WHERE ctid = ANY (ARRAY(SELECT one.tid FROM unnest(tids, tid_of) AS one (tid, n) WHERE done[one.n]));
                GET DIAGNOSTICS reach = ROW_COUNT;
                turns_gone := turns_gone + reach;
                -- A group that may begin more gets another turn, behind the others; when the next is due, if that is later. A
                -- group at its limit gets its turn when one of its jobs ends. The bounds stand for all its jobs.
                INSERT INTO {schema}.group_ready (queue, group_key, due_at, from_id, from_at)
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
                               SELECT {schema}.admits_from(
                                          rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst, rate_state.paid_until)
                               FROM {schema}.rate_state WHERE rate_state.queue = of_queue AND rate_state.group_key = turn.group_key) END AS payable
                ) AS seen
                CROSS JOIN LATERAL (
                    (SELECT next.run_at FROM {schema}.job AS next
                     WHERE in_line AND next.queue = of_queue AND next.group_key <= turn.group_key AND next.state = 'waiting'
                       AND (next.group_key, next.id) >= (turn.group_key, turn.low)
                     ORDER BY next.group_key, next.id LIMIT 1)
                    UNION ALL
                    (SELECT next.run_at FROM {schema}.job AS next
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
        -- Rounded up, once a claim: a share may be no whole number of microseconds.
        paid := paid + ceil(total * (rule.rate_seconds / rule.rate_jobs) * 1000000) * interval '1 microsecond';
        INSERT INTO {schema}.rate_state (queue, group_key, paid_until) VALUES (of_queue, '', paid)
        ON CONFLICT (queue, group_key) DO UPDATE SET paid_until = excluded.paid_until;
    END IF;

    IF total > 0 OR permits IS NULL OR permits > 0 THEN
        SELECT turn.due_at INTO next_turn FROM {schema}.group_ready AS turn
        WHERE turn.queue = of_queue AND turn.due_at >= turns_from AND turn.group_key <> ALL (left_out_groups)
        ORDER BY turn.due_at LIMIT 1;
        SELECT min(head.run_at),
               string_agg(concat_ws(' ', lane.n - 1, (extract(epoch FROM head.run_at) * 1000000)::bigint, head.id), ' ')
                   FILTER (WHERE head.run_at <= moment)
        INTO next_ready, lane_heads
        FROM unnest(ARRAY[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]::smallint[], lanes_since, lanes_since_ids)
             WITH ORDINALITY AS lane (priority, since, since_id, n)
        CROSS JOIN LATERAL (
            SELECT ready.run_at, ready.id FROM {schema}.job AS ready
            WHERE ready.queue = of_queue AND ready.priority = lane.priority AND ready.state = 'ready'
              AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
              AND ready.id <> ALL (left_out) AND coalesce(ready.group_key <> ALL (left_out_groups), true)
            ORDER BY ready.run_at, ready.id LIMIT 1
        ) AS head;
        -- The time, the snapshot's bounds and how many transaction ids after 3 have been given out; how many turns were taken, and
        -- when the first that is left was due, if it is; how many jobs each lane gave; and which due ones each has left: places of
        -- lanes from 0, run_at, id.
        seen := concat_ws(
            '|', seen, concat_ws(' ', turns_gone, CASE WHEN next_turn <= moment THEN (extract(epoch FROM next_turn) * 1000000)::bigint END),
            array_to_string(lane_counts, ' '), coalesce(lane_heads, ''));
    ELSE
        seen := NULL;
    END IF;
    -- When to come again. At the limit, when a job ends; the worker that ends it tells of it.
    IF permits IS NULL OR permits > total THEN
        -- A due one that was not taken although it was wanted is locked by another transaction.
        next_at := least(next_turn, CASE WHEN wanted > 0 AND next_ready <= moment THEN moment + interval '250 milliseconds'
                                         ELSE next_ready END);
        IF next_at IS NOT NULL AND tokens <= total THEN
            next_at := greatest(
                next_at, {schema}.admits_from(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid));
        END IF;
    END IF;
    RETURN QUERY SELECT NULL::bigint, permits - total, NULL, of_queue, seen, NULL::integer, NULL::integer, NULL::integer,
                        CASE WHEN next_at > moment THEN extract(epoch FROM next_at - moment) WHEN next_at IS NOT NULL THEN 0 END
                            ::double precision,
                         CASE WHEN cardinality(running) <= 2000
                              THEN concat_ws(' ', concat(known_by, ':', number), array_to_string(running, ' ')) END,
                         false, NULL::bigint, false, NULL::boolean, NULL::integer;
END
$body$;
