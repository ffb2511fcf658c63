-- Returns the limited queues that have something to claim now or later, and the seconds until their
-- next ready group or ready job is due (0 or less: now). One statement covers all of them, so
-- queues without jobs cost nothing: loose index scans hop over the queues with ready groups, and
-- over the lanes with ready jobs, including those of plain queues, with one descent for each.
-- `capped`: the queues for which this worker has its own cap.
-- Plan: group_ready_idx and job_claim_idx in recursions, an entry a hop; queue_pkey for each queue found; no Sort of jobs.
WITH RECURSIVE turned (queue, due_at) AS (
    (SELECT turn.queue, turn.due_at FROM {schema}.group_ready AS turn ORDER BY turn.queue, turn.due_at LIMIT 1)
    UNION ALL
    SELECT following.queue, following.due_at
    FROM turned
    CROSS JOIN LATERAL (
        SELECT turn.queue, turn.due_at FROM {schema}.group_ready AS turn
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
