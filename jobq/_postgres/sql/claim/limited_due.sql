-- Returns the managed queues that have something to claim now or later, and in how many seconds their next turn or ready job is
-- due (0 or less: now). One look for all of them, so that those without a job cost nothing: loose index scans hop over the queues
-- that have turns, and the lanes that have ready jobs, those of plain queues too: one descent for each of these. `capped`: the queues that this worker has a cap of its own for.
-- Plan: job_turn_idx and job_claim_idx in recursions, an entry a hop; queue_pkey for each queue found; no Sort of jobs.
WITH RECURSIVE turned (queue, due_at) AS (
    (SELECT turn.queue, turn.due_at FROM {schema}.job_turn AS turn ORDER BY turn.queue, turn.due_at LIMIT 1)
    UNION ALL
    SELECT following.queue, following.due_at
    FROM turned
    CROSS JOIN LATERAL (
        SELECT turn.queue, turn.due_at FROM {schema}.job_turn AS turn
        WHERE turn.queue > turned.queue ORDER BY turn.queue, turn.due_at LIMIT 1
    ) AS following
), lane (queue, priority, run_at) AS (
    (SELECT job.queue, job.priority, job.run_at FROM {schema}.job
     WHERE job.state = 'ready' ORDER BY job.queue, job.priority, job.run_at, job.id LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority, following.run_at
    FROM lane
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority, job.run_at FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (lane.queue, lane.priority)
        ORDER BY job.queue, job.priority, job.run_at, job.id LIMIT 1
    ) AS following
)
SELECT found.queue, extract(epoch FROM min(found.at) - clock_timestamp())::double precision
FROM (
    SELECT queue, due_at FROM turned
    UNION ALL
    SELECT lane.queue, lane.run_at FROM lane
    WHERE lane.queue = ANY (%(capped)s::text[]) OR EXISTS (
        SELECT FROM {schema}.queue AS settings
        WHERE settings.name = lane.queue
          AND (settings.max_running IS NOT NULL OR settings.rate_jobs IS NOT NULL OR settings.group_mode IS NOT NULL
               OR EXISTS (SELECT FROM turned WHERE turned.queue = settings.name)))
) AS found (queue, at)
GROUP BY found.queue
