-- Gives a turn to every group of managed queues that has jobs waiting and no turn: there should be none, for whatever makes a job
-- claimable gives one in its own transaction; but a hand that deletes rows does not. One too many only costs a look. The
-- groups are found by a loose index scan: one descent of job_waiting_due_idx per group, whatever the backlog; at most `most`.
-- Returns how many turns were given, and wakes the workers of their queues.
-- Plan: Index Only Scan using job_waiting_due_idx or job_waiting_idx, in a recursion; a hash of the turns; no Seq Scan on job.
WITH RECURSIVE found (queue, group_key, n) AS (
    (SELECT queue, group_key, 1 FROM {schema}.job WHERE state = 'waiting' AND group_key IS NOT NULL
     ORDER BY queue, group_key LIMIT 1)
    UNION ALL
    SELECT following.queue, following.group_key, found.n + 1
    FROM found
    CROSS JOIN LATERAL (
        SELECT job.queue, job.group_key FROM {schema}.job AS job
        WHERE job.state = 'waiting' AND job.group_key IS NOT NULL
          AND (job.queue, job.group_key) > (found.queue, found.group_key)
        ORDER BY job.queue, job.group_key LIMIT 1
    ) AS following
    WHERE found.n < %(most)s
), given AS (
    INSERT INTO {schema}.job_turn (queue, group_key)
    SELECT found.queue, found.group_key
    FROM found
    WHERE NOT EXISTS (
        SELECT FROM {schema}.job_turn AS turn WHERE turn.queue = found.queue AND turn.group_key = found.group_key)
      -- At its limit it has none, and gets one when a job of it ends.
      AND NOT EXISTS (
        SELECT FROM {schema}.job AS held
        WHERE held.queue = found.queue AND held.group_key = found.group_key AND held.state = 'running' AND held.managed)
    RETURNING queue
), woken AS (
    SELECT pg_notify(%(channel)s, 'insert ' || queue) FROM (SELECT DISTINCT queue FROM given) AS fresh
)
SELECT (SELECT count(*) FROM given), (SELECT count(*) FROM woken)
