-- Makes jobs due that other workers' code has refused, of tasks that this one has with another signature, where the queue has a
-- limit, a rate or a rule for groups: those wait there for a while (park.sql), or were parked before the rule was set. Tells the
-- workers of their queues. Jobs that have run since they were refused keep the time of their retry.
-- The variant `parked_due:one` makes one job due only (parked.py).
-- Plan: job_parked_idx for each task under LockRows and Limit; queue_pkey; job_pkey; no Seq Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT refused.id
    FROM unnest(%(tasks)s::text[], %(signatures)s::text[]) AS known (task, signature)
    CROSS JOIN LATERAL (
        SELECT job.id
        FROM {schema}.job AS job
        WHERE job.parked_at IS NOT NULL AND job.task = known.task AND job.parked_claims = job.claims
          AND (job.state = 'parked' OR job.state IN ('ready', 'waiting') AND job.run_at > clock_timestamp())
          AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false)
          AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
          --one AND job.id = %(only)s
          AND EXISTS (
              SELECT FROM {schema}.queue AS rule
              WHERE rule.name = job.queue
                AND (rule.max_running IS NOT NULL OR rule.rate_jobs IS NOT NULL OR rule.group_mode IS NOT NULL))
        ORDER BY job.priority DESC, job.run_at, job.id
        LIMIT 500
        FOR NO KEY UPDATE OF job SKIP LOCKED
    ) AS refused
    LIMIT 500
), due AS (
    UPDATE {schema}.job AS job
    SET state = {schema}.entry_state(job.queue, job.group_key),
        run_at = CASE WHEN job.state = 'parked' THEN job.run_at ELSE least(job.run_at, clock_timestamp()) END
    WHERE job.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING job.queue, job.group_key, job.state, job.run_at
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, due_at)
    SELECT queue, group_key, greatest(run_at, clock_timestamp()) FROM due WHERE state = 'waiting'
), woken AS (
    -- They have their old times, which workers have read past.
    SELECT pg_notify(%(channel)s, concat_ws(
               ' ', 'below', (extract(epoch FROM greatest('epoch', least(min(run_at), now()))) * 1000000)::bigint, queue))
    FROM due GROUP BY queue
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM woken)
