-- The queues that have ready jobs or a row of their own, and which are paused. A loose index scan: one descent of
-- job_claim_idx per queue, whatever the backlog.
-- Plan: Index Only Scan using job_claim_idx, in a recursion; no Seq Scan on job.
WITH RECURSIVE found (queue) AS (
    (SELECT queue FROM {schema}.job WHERE state = 'ready' ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT job.queue FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.queue > found.queue ORDER BY job.queue LIMIT 1)
    FROM found WHERE found.queue IS NOT NULL
)
SELECT coalesce(found.queue, settings.name), settings.paused_at IS NOT NULL
FROM (SELECT queue FROM found WHERE queue IS NOT NULL) AS found
FULL JOIN {schema}.queue AS settings ON settings.name = found.queue
