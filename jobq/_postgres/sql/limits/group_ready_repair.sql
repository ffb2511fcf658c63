-- Gives a turn to every group of managed queues that has jobs waiting and no turn: there should be none, for whatever makes a job
-- claimable gives one in its own transaction; but a hand that deletes rows does not. Nor does a turn help that is far later than
-- the group's head and its rate: it was given while the server's clock was ahead. One too many only costs a look. The
-- groups are found by a loose index scan: one descent of job_waiting_idx per group, whatever the backlog; at most `most`, from the
-- one after (`after_queue`, `after_group`).
-- Of all groups (`among` is NULL), of those of `queues` and `groups` alone (true), or of all but those (false).
-- Returns how many turns were given, wakes the workers of their queues, and tells the last group, if there may be more.
-- Plan: Index Scan using job_waiting_idx, in a recursion; job_waiting_due_idx and queue_pkey for each group; a hash of the turns;
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
    -- When the turn of each is due at the latest.
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
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT expected.queue, expected.group_key
    FROM expected
    WHERE NOT EXISTS (
        SELECT FROM {schema}.job_turn AS turn
        WHERE turn.queue = expected.queue AND turn.group_key = expected.group_key AND turn.due_at <= expected.latest)
      -- At its limit it has none, and gets one when a job of it ends.
      AND NOT EXISTS (
        SELECT FROM {schema}.job AS held
        WHERE held.queue = expected.queue AND held.group_key = expected.group_key AND held.state = 'running' AND held.managed)
      AND (%(among)s::boolean IS NULL OR %(among)s::boolean = (
        (expected.queue, expected.group_key) IN (SELECT * FROM unnest(%(queues)s::text[], %(groups)s::text[]))))
    RETURNING queue
), woken AS (
    SELECT pg_notify(%(channel)s, 'insert ' || queue) FROM (SELECT DISTINCT queue FROM given) AS fresh
)
SELECT (SELECT count(*) FROM given), (SELECT count(*) FROM woken), last.queue, last.group_key
FROM (SELECT 1) AS one LEFT JOIN (SELECT queue, group_key FROM found WHERE n = %(most)s LIMIT 1) AS last ON true
