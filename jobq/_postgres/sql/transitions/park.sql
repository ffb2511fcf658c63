-- Parks jobs that the code of this worker cannot run, until a worker whose code can run them claims
-- them (claim_parked.sql). Their attempts do not count, their run_at stays, and the other workers
-- are notified. Same fence as record_failures.sql. The statement does not wait for locked rows, and
-- every decision uses the versions that `free` has locked: the snapshot may be older than a
-- cancellation.
-- In a queue with a limit, a rate or a rule for groups, a parked job would leave its group's order
-- and would not be counted. So there it goes back to where it entered, with a growing delay: 0.1 s,
-- then a quarter of the time since it was first refused, at most 15 s while a live worker may know
-- it, otherwise a minute. The head of an ordered group holds its group as a retry does.
-- If a job is refused again right after a refusal, it keeps its time, and the list of signatures
-- that refused it grows. So two workers cannot pass a job back and forth.
-- Returns one verdict for each job: parked; fails (no live worker may fit it: values at once,
-- parameters after `patience`); cancelled (an operator has requested it); busy (locked: try again).
-- Plan: Index Scan using job_pkey; the workers' table whole; no Seq Scan on job.
WITH refused AS (
    SELECT *
    FROM unnest(
        %(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(kinds)s::text[], %(signatures)s::text[],
        %(reasons)s::text[]
    ) AS refused (id, claims, started, kind, signature, reason)
), free AS MATERIALIZED (
    SELECT job.id, job.claims, job.worker_id, job.started_at, job.task, job.queue, job.parked_at, job.parked_claims,
           job.parked_signature, job.cancel_requested_at
    FROM {schema}.job AS job WHERE job.id = ANY (%(ids)s::bigint[]) ORDER BY job.id FOR NO KEY UPDATE SKIP LOCKED
), mine AS MATERIALIZED (
    SELECT free.id, free.task, refused.kind, refused.reason, free.cancel_requested_at IS NOT NULL AS cancelled,
           CASE WHEN again.right_away THEN free.parked_at END AS since,
           concat_ws(' ', CASE WHEN again.right_away THEN free.parked_signature END,
                     CASE WHEN NOT (again.right_away
                                    AND coalesce(refused.signature = ANY (string_to_array(free.parked_signature, ' ')), false))
                          THEN refused.signature END) AS signatures,
           EXISTS (SELECT FROM {schema}.queue AS rule
                   WHERE rule.name = free.queue
                     AND (rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL)) AS ruled
    FROM refused
    JOIN free ON free.id = refused.id AND free.claims = refused.claims AND free.worker_id = %(worker)s
      AND free.started_at = to_timestamp(refused.started / 1e6::float8)
    CROSS JOIN LATERAL (SELECT coalesce(free.parked_claims = free.claims - 1, false) AS right_away) AS again
), judged AS MATERIALIZED (
    SELECT mine.*, others.may, mine.kind <> 'task' AND NOT others.may
           AND (mine.kind = 'values'
                OR coalesce(mine.since, clock_timestamp()) <= clock_timestamp() - %(patience)s * interval '1 second') AS fails
    FROM mine
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM {schema}.worker
            CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
            WHERE worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second'
              AND worker.state <> 'draining' AND known.task = mine.task
              AND NOT coalesce(known.signature = ANY (string_to_array(mine.signatures, ' ')), false)) AS may
    ) AS others
), parked AS (
    UPDATE {schema}.job AS job
    SET state = CASE WHEN judged.ruled THEN {schema}.entry_state(job.queue, job.group_key) ELSE 'parked' END,
        run_at = CASE WHEN judged.ruled
                      THEN clock_timestamp() + least(
                          greatest(coalesce(clock_timestamp() - judged.since, interval '0') / 4, interval '100 milliseconds'),
                          CASE WHEN judged.may THEN interval '15 seconds' ELSE interval '1 minute' END)
                      ELSE job.run_at END,
        worker_id = NULL, started_at = NULL, attempt = job.attempt - 1,
        -- As far as its key is concerned, the job has not started.
        key_until_started = job.key_until_started
                            OR (job.key_holds IS NOT DISTINCT FROM 'until_started' AND job.attempt = 1),
        parked_at = coalesce(judged.since, clock_timestamp()), parked_claims = job.claims, parked_reason = judged.reason,
        parked_signature = nullif(judged.signatures, '')
    FROM judged
    WHERE job.id = judged.id AND NOT judged.fails AND NOT judged.cancelled
    RETURNING job.id, job.task, job.queue, job.state, job.limited, job.group_key, job.run_at, job.key, job.key_scope, job.key_until_started
), retaken AS MATERIALIZED (
    -- Its key was released for a start that did not happen: take the key again, unless another job
    -- has it by now.
    SELECT {schema}.take_key(key, id, 'until_started', task, key_scope) FROM parked WHERE key_until_started
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, run_at FROM parked WHERE state = 'waiting'
    UNION ALL
    SELECT queue, group_key, clock_timestamp() FROM parked WHERE limited AND group_key IS NOT NULL
), woken AS (
    SELECT pg_notify(%(channel)s, word)
    FROM (SELECT 'parked ' || task AS word FROM parked WHERE state = 'parked'
          UNION SELECT 'insert ' || queue FROM parked WHERE state <> 'parked') AS words
)
SELECT id, 'parked' FROM parked WHERE (SELECT count(*) FROM woken) + (SELECT count(*) FROM retaken) >= 0
UNION ALL
SELECT id, CASE WHEN cancelled THEN 'cancelled' ELSE 'fails' END FROM judged WHERE fails OR cancelled
UNION ALL
SELECT job.id, 'busy'
FROM refused JOIN {schema}.job AS job ON job.id = refused.id AND job.claims = refused.claims AND job.worker_id = %(worker)s
WHERE (SELECT count(*) FROM free) < (SELECT count(DISTINCT id) FROM refused) AND NOT refused.id = ANY (ARRAY(SELECT id FROM free))
