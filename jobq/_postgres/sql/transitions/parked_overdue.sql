-- Locks a batch of parked jobs, except those `aside`, that have waited for `patience` seconds and
-- whose arguments fit the parameters of no live worker's task. Jobs whose task no worker knows keep
-- waiting. If a live worker's code may fit a job, that worker claims it, so it is skipped here.
-- Returns the ids.
-- Plan: job_parked_idx from its beginning to its end, under LockRows and Limit; no Seq Scan on job.
WITH chosen AS MATERIALIZED (
    SELECT job.id
    FROM {schema}.job AS job
    WHERE job.parked_at IS NOT NULL AND job.state = 'parked' AND job.parked_signature IS NOT NULL
      AND job.parked_at <= clock_timestamp() - %(patience)s * interval '1 second'
      AND job.id <> ALL (%(aside)s::bigint[])
      AND NOT EXISTS (
          SELECT FROM {schema}.worker
          CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
          WHERE worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second'
            AND worker.state <> 'draining'
            AND known.task = job.task AND
            --include signature_not_refused refusals=job.parked_signature
      )
    ORDER BY job.task, job.priority, job.run_at, job.id
    LIMIT %(batch)s
    FOR UPDATE OF job SKIP LOCKED
)
SELECT ARRAY(SELECT id FROM chosen)
