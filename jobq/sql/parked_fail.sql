-- Ends parked jobs as failed whose arguments fit the parameters of no live worker's task, when they have waited for `patience`
-- seconds; jobs whose task no worker knows keep waiting. A live worker whose code may fit them claims them, so those are left.
-- Plan: job_parked_idx from its beginning to its end, under LockRows and Limit; no Seq Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT job.id
    FROM {schema}.job AS job
    WHERE job.parked_at IS NOT NULL AND job.state = 'parked' AND job.parked_signature IS NOT NULL
      AND job.parked_at <= clock_timestamp() - %(patience)s * interval '1 second'
      AND NOT EXISTS (
          SELECT FROM {schema}.worker
          CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
          WHERE worker.heartbeat_at > clock_timestamp() - coalesce(worker.lease, 30) * interval '1 second'
            AND worker.state <> 'draining'
            AND known.task = job.task
            AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false))
    ORDER BY job.task, job.priority, job.run_at, job.id
    LIMIT %(batch)s
    FOR UPDATE OF job SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING id, claims, attempt, max_attempts, priority, crashes, queue, task, run_at, created_at, timeout, key, key_holds, group_key,
              args, headers, parked_reason, parked_at
), released AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM gone WHERE key IS NOT NULL))
      AND job_id = ANY (ARRAY(SELECT id FROM gone WHERE key IS NOT NULL))
      AND holds <> 'period'
), attempts AS (
    INSERT INTO {schema}.job_attempt (job_id, claims, attempt, outcome, started_at, error_type, message)
    SELECT id, claims, attempt + 1, 'failed', parked_at, 'jobq.errors.InvalidArguments', parked_reason FROM gone
), kept AS (
    INSERT INTO {schema}.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                      created_at, finished_at, timeout, key, key_holds, group_key, error, args, headers)
    SELECT id, claims, attempt + 1, max_attempts, priority, crashes, queue, task, 'failed', run_at, created_at,
           clock_timestamp(), timeout, key, key_holds, group_key, parked_reason, args, headers
    FROM gone
)
SELECT count(*) FROM gone
