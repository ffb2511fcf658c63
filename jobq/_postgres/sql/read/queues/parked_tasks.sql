-- Counts the parked jobs by task, with what refused them, among at most `bound` jobs. `may`:
-- whether some live worker's code may fit them.
-- Plan: job_parked_idx up to `bound` entries; the worker table is read whole.
SELECT job.task, job.parked_signature IS NULL AS unknown, count(*)::integer AS number, min(job.parked_at) AS since,
       extract(epoch FROM clock_timestamp() - min(job.parked_at))::double precision AS seconds,
       min(job.parked_reason) AS reason, array_agg(DISTINCT job.queue) AS queues,
       EXISTS (SELECT FROM {schema}.worker
               CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
               WHERE worker.heartbeat_at > clock_timestamp() - worker.lease * interval '1 second'
                 AND worker.state <> 'draining'
                 AND known.task = job.task AND
                 --include signature_not_refused refusals=job.parked_signature
       ) AS may
FROM (SELECT task, queue, parked_at, parked_reason, parked_signature FROM {schema}.job
      WHERE
          --include parked_jobs
      LIMIT %(bound)s) AS job
GROUP BY job.task, job.parked_signature
ORDER BY number DESC, job.task
LIMIT 100
