-- Acknowledge successes and claim new jobs: one statement, one commit.
--
-- The fence is (id, claims, worker_id, started_at): `started_at` too, as a failover may issue the others a second time; in
-- microseconds, which to_timestamp gives back exactly in this century. It does not name `state`, or the planner would take
-- the partial index of running jobs and walk its dead entries. A claim reads each lane (queue, priority) through
-- job_claim_idx in order, from where cursor.py says (so it does not walk the dead entries of what was claimed before) to
-- now() (so it never reads future jobs), and pulls only as many rows as it takes. `= ANY (ARRAY(…))`: joined to a CTE the
-- update would become a hash join over the whole table once the plan is generic.
-- A job with a group, claimed by claim_managed, gives its group another turn when it ends.
-- The variant `advance:except` leaves out the jobs whose claims the database refuses (refused.py); only then is that line there.
-- Plan: Index Scan using job_claim_idx under LockRows and Limit; Index Scan using job_pkey; no Sort, no Seq Scan on job.
-- The first row returned tells how many acknowledgements were accepted; then, as text, what cursor.py wants to know: the
-- time, the snapshot's bounds, how many transaction ids after 3 have been given out, and the lane (from 0), run_at and id of the last job where there were as many as wanted;
-- then pairs of lane and number of jobs. The other rows are the claimed jobs, with the columns of claim_managed.sql; `started` is
-- NULL: all were claimed at the time in the first row.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    USING unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(results)s::text[],
                 %(seconds)s::double precision[]) AS done (id, claims, started, result, seconds)
    WHERE job.id = done.id
      AND job.claims = done.claims
      AND job.worker_id = %(worker)s
      AND job.started_at = to_timestamp(done.started / 1e6::float8)
    RETURNING job.*, done.result, done.seconds
), kept AS (
    INSERT INTO {schema}.job_history (
        id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, started_at,
        finished_at, worker_id, timeout, key, key_holds, key_scope, group_key, args, headers, result)
    SELECT id, claims, attempt, max_attempts, priority, crashes, queue, task, 'succeeded', run_at, created_at,
           now() - seconds * interval '1 second', now(), worker_id, timeout, key, key_holds, key_scope, group_key, args, headers,
           result::jsonb
    FROM finished
), bound AS MATERIALIZED (
    -- Of plain jobs none: what follows reads these instead of all.
    SELECT id, key, queue, group_key, managed FROM finished WHERE key IS NOT NULL OR group_key IS NOT NULL
), freed AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM bound WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM bound WHERE key IS NOT NULL))
      AND holds = 'until_finished'
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, from_id, from_at)
    SELECT queue, group_key, 9223372036854775807, 'infinity'::timestamptz FROM bound WHERE managed AND group_key IS NOT NULL
), heads AS MATERIALIZED (
    SELECT lane.n - 1 AS lane, head.run_at, head.id
    FROM unnest(
        %(queues)s::text[], %(priorities)s::smallint[], %(since)s::bigint[], %(since_ids)s::bigint[]
    ) WITH ORDINALITY AS lane (queue, priority, since, since_id, n)
    CROSS JOIN LATERAL (
        SELECT ready.run_at, ready.id
        FROM {schema}.job AS ready
        WHERE ready.queue = lane.queue
          AND ready.priority = lane.priority
          AND ready.state = 'ready'
          AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
          AND ready.run_at <= now()
          --except AND NOT ready.id = ANY (%(refused)s::bigint[])
        ORDER BY ready.run_at, ready.id
        LIMIT %(want)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS head
    LIMIT %(want)s
), claimed AS (
    UPDATE {schema}.job AS job
    -- At the end of its range `attempt` stays, and `claims`, which only has to differ from the last one, begins again.
    SET state = 'running', attempt = least(job.attempt, 2147483646) + 1,
        claims = CASE job.claims WHEN 2147483647 THEN 1 ELSE job.claims + 1 END,
        worker_id = %(worker)s, started_at = now(), progress = NULL
    WHERE job.id = ANY (ARRAY(SELECT id FROM heads))
    RETURNING job.id, job.claims, job.task, job.queue, job.args, job.attempt, job.max_attempts,
              job.crashes - job.losses AS crashes,
              job.timeout, job.headers, job.expires_at, job.key_until_started, job.run_alone, job.releases
)
SELECT (SELECT count(*) FROM finished), NULL,
       concat_ws(' ', (extract(epoch FROM now()) * 1000000)::bigint, pg_snapshot_xmin(seen), pg_snapshot_xmax(seen),
                 age('3'::xid),
                 (SELECT concat_ws(' ', lane, (extract(epoch FROM run_at) * 1000000)::bigint, id)
                  FROM heads OFFSET greatest(%(want)s - 1, 0) LIMIT 1)),
       (SELECT string_agg(concat_ws(' ', lane, jobs), ' ') FROM (SELECT lane, count(*) AS jobs FROM heads GROUP BY lane) AS lanes),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_current_snapshot() AS seen
UNION ALL
SELECT id, claims, task, queue, args::text, attempt, max_attempts, crashes, timeout, headers::text,
       expires_at <= now(), NULL::bigint, key_until_started, run_alone, releases
FROM claimed
