-- The parked jobs by task, with what refused them; of at most `bound` jobs. `may`: whether some live worker's code may fit them.
-- Plan: job_parked_idx up to `bound` entries; the worker table is read whole.
SELECT job.task, job.parked_signature IS NULL AS unknown, count(*)::integer AS number, min(job.parked_at) AS since,
       extract(epoch FROM clock_timestamp() - min(job.parked_at))::double precision AS seconds,
       min(job.parked_reason) AS reason, array_agg(DISTINCT job.queue) AS queues,
       EXISTS (SELECT FROM {schema}.worker
               CROSS JOIN LATERAL unnest(worker.tasks, worker.signatures) AS known (task, signature)
               WHERE worker.heartbeat_at > clock_timestamp() - coalesce(worker.lease, 30) * interval '1 second'
                 AND worker.state <> 'draining'
                 AND known.task = job.task
                 AND NOT coalesce(known.signature = ANY (string_to_array(job.parked_signature, ' ')), false)) AS may
FROM (SELECT task, queue, parked_at, parked_reason, parked_signature FROM {schema}.job
      WHERE parked_at IS NOT NULL AND state <> 'running' AND parked_claims = claims
      LIMIT %(bound)s) AS job
GROUP BY job.task, job.parked_signature
ORDER BY number DESC, job.task
LIMIT 100
