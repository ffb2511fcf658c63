-- The queues that have ready jobs or a row of their own, which are paused, and which are managed: their jobs are claimed by
-- claim_managed (one whose rule for groups was taken away, until the last turn is taken). A loose index scan: one descent of
-- job_claim_idx per queue, whatever the backlog.
-- Plan: Index Only Scan using job_claim_idx, in a recursion; no Seq Scan on job.
WITH RECURSIVE found (queue) AS (
    (SELECT queue FROM {schema}.job WHERE state = 'ready' ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT job.queue FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.queue > found.queue ORDER BY job.queue LIMIT 1)
    FROM found WHERE found.queue IS NOT NULL
)
SELECT coalesce(found.queue, settings.name), settings.paused_at IS NOT NULL,
       settings.max_running IS NOT NULL OR settings.rate_jobs IS NOT NULL OR settings.group_mode IS NOT NULL
       OR EXISTS (SELECT FROM {schema}.job_turn WHERE job_turn.queue = settings.name)
FROM (SELECT queue FROM found WHERE queue IS NOT NULL) AS found
FULL JOIN {schema}.queue AS settings ON settings.name = found.queue
