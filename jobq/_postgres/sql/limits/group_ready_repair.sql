-- Makes every group of limited queues ready that has waiting jobs and no row in group_ready. There
-- should be no such group, because every change that makes a job claimable inserts the row in its
-- own transaction; manual deletes do not. A row that is due far later than the group's head and its
-- rate does not help either: it was written while the server's clock was ahead. A row too many
-- costs only a look.
-- The groups are found by a loose index scan: one descent of job_waiting_idx per group, whatever
-- the backlog. At most `most` groups, from the one after (`after_queue`, `after_group`).
-- Applies to all groups (`among` is NULL), only those of `queues` and `groups` (true), or all
-- except those (false).
-- Returns how many rows were written, notifies the workers of their queues, and returns the last
-- group if there may be more.
-- Plan: Index Scan using job_waiting_idx, in a recursion; job_waiting_due_idx and queue_pkey for each group; a hash of group_ready;
-- no Seq Scan on job.
WITH RECURSIVE found (queue, group_key, run_at, n) AS (
    (SELECT queue, group_key, run_at, 1 FROM {schema}.job
     WHERE state = 'waiting' AND group_key IS NOT NULL
       AND (queue, group_key) > (%(after_queue)s::text, %(after_group)s::text)
     ORDER BY queue, group_key, id LIMIT 1)
    UNION ALL
    SELECT following.queue, following.group_key, following.run_at, found.n + 1
    FROM found
    CROSS JOIN LATERAL (
        SELECT job.queue, job.group_key, job.run_at FROM {schema}.job AS job
        WHERE job.state = 'waiting' AND job.group_key IS NOT NULL
          AND (job.queue, job.group_key) > (found.queue, found.group_key)
        ORDER BY job.queue, job.group_key, job.id LIMIT 1
    ) AS following
    WHERE found.n < %(most)s
), expected AS MATERIALIZED (
    -- When each group's row must be due at the latest.
    SELECT found.queue, found.group_key,
           greatest(now(), CASE WHEN settings.group_mode = 'ordered' AND settings.group_retry IS DISTINCT FROM 'pass'
                                THEN found.run_at ELSE head.run_at END)
           + (1 + coalesce(settings.group_rate_burst * settings.group_rate_seconds / settings.group_rate_jobs, 0)) * interval '1 second'
               AS latest
    FROM found
    LEFT JOIN LATERAL (
        SELECT group_mode, group_retry, group_rate_jobs, group_rate_seconds, group_rate_burst
        FROM {schema}.queue WHERE queue.name = found.queue LIMIT 1
    ) AS settings ON true
    CROSS JOIN LATERAL (
        SELECT job.run_at FROM {schema}.job AS job
        WHERE job.state = 'waiting' AND job.queue = found.queue AND job.group_key = found.group_key
        ORDER BY job.run_at, job.id LIMIT 1
    ) AS head
), given AS (
    INSERT INTO {schema}.group_ready (queue, group_key)
    SELECT expected.queue, expected.group_key
    FROM expected
    WHERE NOT EXISTS (
        SELECT FROM {schema}.group_ready AS turn
        WHERE turn.queue = expected.queue AND turn.group_key = expected.group_key AND turn.due_at <= expected.latest)
      -- A group at its limit has no row, and gets one when one of its jobs ends.
      AND NOT EXISTS (
        SELECT FROM {schema}.job AS held
        WHERE held.queue = expected.queue AND held.group_key = expected.group_key AND held.state = 'running' AND held.limited)
      AND (%(among)s::boolean IS NULL OR %(among)s::boolean = (
        (expected.queue, expected.group_key) IN (SELECT * FROM unnest(%(queues)s::text[], %(groups)s::text[]))))
    RETURNING queue
), woken AS (
    --include notify_queues
    (SELECT DISTINCT queue FROM given) AS fresh
)
SELECT (SELECT count(*) FROM given), (SELECT count(*) FROM woken), last.queue, last.group_key
FROM (SELECT 1) AS one LEFT JOIN (SELECT queue, group_key FROM found WHERE n = %(most)s LIMIT 1) AS last ON true
