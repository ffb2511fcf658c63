-- Claims up to `want` jobs of one queue that has a limit, a rate, or a rule for its groups. Exact under any concurrency: the
-- queue's claims follow one another, by an advisory lock that is held through the commit, and each statement below, in READ
-- COMMITTED, sees all that was committed before the lock was had. Running jobs are themselves the permits, counted
-- through job_managed_idx: nothing has to be given back, so nothing can be lost.
-- Returns the claimed jobs as advance.sql does, and one row without an id: in `claims` how many running jobs the limit still
-- admits (NULL: any number), in `timeout` the seconds until more can be claimed (0: now; NULL: not before something is told).
-- Plan: job_managed_idx, job_turn_idx, job_waiting_idx or job_waiting_due_idx, job_claim_idx, job_pkey; no Sort of jobs.
CREATE OR REPLACE FUNCTION {schema}.claim_managed(by_worker uuid, of_queue text, want integer)
RETURNS TABLE (
    id bigint, claims integer, task text, queue text, args text, attempt integer, max_attempts integer, crashes integer,
    timeout double precision, headers text, expired boolean
)
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    rule {schema}.queue%ROWTYPE;
    moment timestamptz;
    wanted integer := want;
    permits integer;
    paid timestamptz;
    share interval;
    tokens integer;
    total integer := 0;
    got bigint[];
    keys text[];
    dues timestamptz[];
    rooms integer[];
    frees integer[];
    picked bigint[];
    picked_of integer[];
    ways text[] := CASE WHEN random() < 0.5 THEN ARRAY['turns', 'lanes', 'turns'] ELSE ARRAY['lanes', 'turns', 'lanes'] END;
    way text;
    in_line boolean;
    ruled boolean;
    entering boolean := false;
    patience constant text := current_setting('lock_timeout');
    next_at timestamptz;
BEGIN
    -- Other claims hold the lock for milliseconds; somebody who configures the queue, until he commits. Whoever waits here keeps
    -- back what his connection has to do for other queues.
    IF patience <> '0' THEN
        PERFORM set_config('lock_timeout', '200ms', true);
    END IF;
    PERFORM pg_advisory_xact_lock('{schema}.job_turn'::regclass::oid::integer, hashtext(of_queue));
    PERFORM set_config('lock_timeout', patience, true);
    -- A turn that this very transaction has given may be taken below: what it inserts later needs another.
    PERFORM set_config('jobq.turn', '', true);
    SELECT * INTO rule FROM {schema}.queue WHERE name = of_queue;
    IF rule.paused_at IS NOT NULL THEN
        RETURN;
    END IF;
    moment := clock_timestamp();
    -- Without a rule it is a cap of the worker that asks, which is nobody else's matter.
    ruled := rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL;
    in_line := coalesce(rule.group_mode = 'ordered' AND rule.group_retry IS DISTINCT FROM 'pass', false);
    IF rule.max_running IS NOT NULL THEN
        SELECT rule.max_running - count(*) INTO permits
        FROM (SELECT FROM {schema}.job
              WHERE queue = of_queue AND state = 'running' AND managed LIMIT rule.max_running) AS held;
        wanted := least(wanted, permits);
    END IF;
    IF rule.rate_jobs IS NOT NULL THEN
        share := rule.rate_seconds / rule.rate_jobs * interval '1 second';
        SELECT gate.paid_until INTO paid FROM {schema}.gate WHERE queue = of_queue AND group_key = '';
        paid := greatest(paid, moment);
        tokens := {schema}.admits(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid, moment);
        wanted := least(wanted, tokens);
    END IF;

    -- Jobs that came as ready before the queue had a rule for groups, or while that was being set, take their place first.
    IF rule.group_mode IS NOT NULL AND wanted > 0 THEN
        FOR n IN 1..20 LOOP
            WITH entered AS (
                UPDATE {schema}.job SET state = 'waiting'
                WHERE id = ANY (ARRAY(
                    SELECT late.id FROM {schema}.job AS late
                    WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL
                    ORDER BY late.id LIMIT 1000 FOR UPDATE SKIP LOCKED))
                RETURNING group_key
            )
            INSERT INTO {schema}.job_turn (queue, group_key, due_at) SELECT DISTINCT of_queue, group_key, moment FROM entered;
            entering := FOUND;
            EXIT WHEN NOT entering;
        END LOOP;
        IF EXISTS (SELECT FROM {schema}.job AS late
                   WHERE late.queue = of_queue AND late.state = 'ready' AND late.group_key IS NOT NULL) THEN
            -- More than fit into one go, or somebody has one locked; in order, or not at all.
            RETURN QUERY SELECT NULL::bigint, permits, NULL, of_queue, NULL, NULL::integer, NULL::integer, NULL::integer,
                                CASE WHEN entering THEN 0 ELSE 0.25 END::double precision, NULL, false;
            RETURN;
        END IF;
    END IF;

    FOREACH way IN ARRAY ways LOOP
        FOR n IN 1..8 LOOP
            EXIT WHEN wanted <= 0;
            IF way = 'lanes' THEN
                -- As advance.sql reads them: priority by priority, only as many rows as it takes.
                picked := ARRAY(
                    SELECT head.id
                    FROM generate_series(9, 0, -1) AS lane (priority)
                    CROSS JOIN LATERAL (
                        SELECT ready.id FROM {schema}.job AS ready
                        WHERE ready.queue = of_queue AND ready.priority = lane.priority AND ready.state = 'ready'
                          AND ready.run_at <= moment AND (rule.group_mode IS NULL OR ready.group_key IS NULL)
                        ORDER BY ready.run_at, ready.id
                        LIMIT wanted
                        FOR UPDATE SKIP LOCKED
                    ) AS head
                    LIMIT wanted);
                EXIT WHEN cardinality(picked) = 0;
                got := picked;
            ELSE
                WITH taken AS (
                    DELETE FROM {schema}.job_turn
                    WHERE ctid = ANY (ARRAY(
                        SELECT turn.ctid FROM {schema}.job_turn AS turn
                        WHERE turn.queue = of_queue AND turn.due_at <= moment
                        ORDER BY turn.due_at LIMIT greatest(wanted, 64)))
                    RETURNING group_key, due_at
                ), each AS (
                    SELECT group_key, min(due_at) AS due_at FROM taken GROUP BY group_key
                )
                SELECT array_agg(group_key ORDER BY due_at, group_key), array_agg(due_at ORDER BY due_at, group_key)
                INTO keys, dues FROM each;
                EXIT WHEN keys IS NULL;

                -- How many each group may begin: by its limit, and by its rate.
                SELECT array_agg(
                           greatest(0, least(
                               CASE WHEN rule.group_mode = 'ordered' THEN 1 ELSE coalesce(gate.max_running, rule.group_limit, 1000000) END
                               - (SELECT count(*) FROM (
                                      SELECT FROM {schema}.job AS held
                                      WHERE held.queue = of_queue AND held.group_key = turn.group_key AND held.state = 'running'
                                        AND held.managed
                                      LIMIT CASE WHEN rule.group_mode = 'ordered' THEN 1 ELSE coalesce(gate.max_running, rule.group_limit) END
                                  ) AS running),
                               {schema}.admits(
                                   rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst,
                                   greatest(gate.paid_until, moment), moment)))::integer
                           ORDER BY turn.n)
                INTO rooms
                FROM unnest(keys) WITH ORDINALITY AS turn (group_key, n)
                LEFT JOIN {schema}.gate ON gate.queue = of_queue AND gate.group_key = turn.group_key;

                -- The heads of the groups, an even share each. An ordered group has one head, and a head that is not due
                -- (its retry is to come) holds the others back, or lets them pass.
                IF rule.group_mode = 'ordered' THEN
                    SELECT array_agg(head.id), array_agg(head.n::integer) INTO picked, picked_of
                    FROM (
                        SELECT head.id, turn.n
                        FROM unnest(keys, rooms) WITH ORDINALITY AS turn (group_key, room, n)
                        CROSS JOIN LATERAL (
                            SELECT first.id, first.run_at FROM {schema}.job AS first
                            WHERE first.queue = of_queue AND first.group_key = turn.group_key AND first.state = 'waiting'
                              AND (in_line OR first.run_at <= moment)
                            ORDER BY first.id LIMIT 1
                        ) AS head
                        WHERE turn.room > 0 AND head.run_at <= moment
                        LIMIT wanted
                    ) AS head (id, n);
                ELSE
                    SELECT array_agg(head.id), array_agg(head.n::integer) INTO picked, picked_of
                    FROM (
                        SELECT head.id, turn.n
                        FROM unnest(keys, rooms) WITH ORDINALITY AS turn (group_key, room, n)
                        CROSS JOIN LATERAL (
                            SELECT first.id FROM {schema}.job AS first
                            WHERE first.queue = of_queue AND first.group_key = turn.group_key AND first.state = 'waiting'
                              AND first.run_at <= moment
                            ORDER BY first.run_at, first.id
                            LIMIT least(turn.room, greatest(1, wanted / cardinality(keys)))
                        ) AS head
                        WHERE turn.room > 0
                        LIMIT wanted
                    ) AS head (id, n);
                END IF;
                picked := coalesce(picked, '{}');
                picked_of := coalesce(picked_of, '{}');
                -- What somebody has locked is not waited for: an operator who is about to cancel it may take as long as he likes.
                got := ARRAY(SELECT free.id FROM {schema}.job AS free
                             WHERE free.id = ANY (picked) AND free.state = 'waiting' ORDER BY free.id FOR UPDATE SKIP LOCKED);
                frees := ARRAY(
                    SELECT (SELECT count(*) FROM unnest(picked, picked_of) AS one (id, n)
                            WHERE one.n = turn.n AND one.id = ANY (got))::integer
                    FROM generate_series(1, cardinality(keys)) AS turn (n));
            END IF;

            RETURN QUERY
                WITH claimed AS (
                    UPDATE {schema}.job AS job
                    SET state = 'running', managed = ruled, attempt = least(job.attempt, 2147483646) + 1,
                        claims = CASE job.claims WHEN 2147483647 THEN 1 ELSE job.claims + 1 END, worker_id = by_worker, started_at = moment, progress = NULL
                    WHERE job.id = ANY (got)
                    RETURNING job.id, job.claims, job.task, job.queue, job.args, job.attempt, job.max_attempts,
                              job.crashes - job.losses AS crashes, job.timeout, job.headers, job.key, job.expires_at
                ), started AS (
                    DELETE FROM {schema}.job_key
                    WHERE key = ANY (ARRAY(SELECT key FROM claimed WHERE key IS NOT NULL))
                      AND job_id = ANY (ARRAY(SELECT id FROM claimed WHERE key IS NOT NULL))
                      AND holds = 'until_started'
                )
                SELECT claimed.id, claimed.claims, claimed.task, claimed.queue, claimed.args::text, claimed.attempt,
                       claimed.max_attempts, claimed.crashes::integer, claimed.timeout, claimed.headers::text,
                       claimed.expires_at <= moment
                FROM claimed;
            wanted := wanted - cardinality(got);
            total := total + cardinality(got);

            IF way = 'turns' THEN
                IF rule.group_rate_jobs IS NOT NULL AND cardinality(got) > 0 THEN
                    INSERT INTO {schema}.gate AS gate (queue, group_key, paid_until)
                    SELECT of_queue, used.group_key,
                           moment + used.jobs * (rule.group_rate_seconds / rule.group_rate_jobs) * interval '1 second'
                    FROM unnest(keys, frees) AS used (group_key, jobs) WHERE used.jobs > 0
                    ON CONFLICT (queue, group_key) DO UPDATE
                    SET paid_until = greatest(gate.paid_until, moment) + (excluded.paid_until - moment);
                END IF;
                -- A group that may begin more gets another turn, behind the others; when the next is due, if that is later. One
                -- that was not come to keeps its place. A group at its limit gets its turn when one of its jobs ends.
                INSERT INTO {schema}.job_turn (queue, group_key, due_at)
                SELECT of_queue, turn.group_key,
                       CASE WHEN NOT seen.offered AND following.run_at <= moment AND (turn.room > 0) THEN turn.due_at
                            WHEN turn.room <= turn.used
                                 THEN greatest(following.run_at, seen.payable)
                            WHEN seen.refused THEN greatest(following.run_at, moment + interval '250 milliseconds')
                            ELSE greatest(following.run_at, moment) END
                FROM unnest(keys, dues, rooms, frees) WITH ORDINALITY AS turn (group_key, due_at, room, used, n)
                CROSS JOIN LATERAL (
                    SELECT turn.n = ANY (picked_of) AS offered,
                           EXISTS (SELECT FROM unnest(picked, picked_of) AS one (id, n)
                                   WHERE one.n = turn.n AND NOT one.id = ANY (got)) AS refused,
                           CASE WHEN rule.group_rate_jobs IS NOT NULL THEN (
                               SELECT {schema}.admits_from(
                                          rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst, gate.paid_until)
                               FROM {schema}.gate WHERE gate.queue = of_queue AND gate.group_key = turn.group_key) END AS payable
                ) AS seen
                CROSS JOIN LATERAL (
                    (SELECT next.run_at FROM {schema}.job AS next
                     WHERE in_line AND next.queue = of_queue AND next.group_key = turn.group_key AND next.state = 'waiting'
                     ORDER BY next.id LIMIT 1)
                    UNION ALL
                    (SELECT next.run_at FROM {schema}.job AS next
                     WHERE NOT in_line AND next.queue = of_queue AND next.group_key = turn.group_key AND next.state = 'waiting'
                     ORDER BY next.run_at, next.id LIMIT 1)
                ) AS following
                WHERE turn.room > turn.used OR seen.payable > moment;
            END IF;
            EXIT WHEN way = 'lanes';
        END LOOP;
    END LOOP;

    IF total > 0 AND rule.rate_jobs IS NOT NULL THEN
        paid := paid + total * share;
        INSERT INTO {schema}.gate (queue, group_key, paid_until) VALUES (of_queue, '', paid)
        ON CONFLICT (queue, group_key) DO UPDATE SET paid_until = excluded.paid_until;
    END IF;

    -- When to come again. At the limit: when a job ends, which whoever ends it knows.
    IF permits IS NULL OR permits > total THEN
        SELECT min(soon.at) INTO next_at
        FROM (
            (SELECT turn.due_at FROM {schema}.job_turn AS turn WHERE turn.queue = of_queue ORDER BY turn.due_at LIMIT 1)
            UNION ALL
            -- A due one that was not taken although it was wanted is locked by somebody.
            SELECT CASE WHEN wanted > 0 AND head.run_at <= moment THEN moment + interval '250 milliseconds' ELSE head.run_at END
            FROM generate_series(0, 9) AS lane (priority)
            CROSS JOIN LATERAL (
                SELECT ready.run_at FROM {schema}.job AS ready
                WHERE ready.queue = of_queue AND ready.priority = lane.priority AND ready.state = 'ready'
                ORDER BY ready.run_at, ready.id LIMIT 1
            ) AS head
        ) AS soon (at);
        IF next_at IS NOT NULL AND tokens <= total THEN
            next_at := greatest(
                next_at, {schema}.admits_from(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, paid));
        END IF;
    END IF;
    RETURN QUERY SELECT NULL::bigint, permits - total, NULL, of_queue, NULL, NULL::integer, NULL::integer, NULL::integer,
                        CASE WHEN next_at > moment THEN extract(epoch FROM next_at - moment) WHEN next_at IS NOT NULL THEN 0 END
                            ::double precision, NULL, false;
END
$body$;
