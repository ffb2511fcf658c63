-- Returns whether no job of these queues (NULL: all) is due or running, and no group is ready. Jobs
-- in `leaving` do not count, because they cannot be claimed or ended. Paused queues do not count,
-- because no worker claims from them.
-- A loose index scan finds the lanes (queue, priority), and each lane is probed for one due job:
-- future jobs are not read. LIMIT keeps this a probe per lane; as EXISTS it could become a join
-- with the whole table.
-- Plan: in the recursion and for each lane one row of job_claim_idx; no Sort, no Seq Scan on job.
WITH RECURSIVE lane AS (
    (SELECT job.queue, job.priority FROM {schema}.job
     WHERE job.state = 'ready' ORDER BY job.queue, job.priority LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority
    FROM lane
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (lane.queue, lane.priority)
        ORDER BY job.queue, job.priority LIMIT 1
    ) AS following
)
SELECT NOT EXISTS (
    SELECT FROM {schema}.job AS job
    WHERE job.state = 'running' AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
      AND NOT job.id = ANY (%(leaving)s::bigint[])
) AND NOT EXISTS (
    SELECT
    FROM lane
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job AS job
        WHERE job.queue = lane.queue AND job.priority = lane.priority AND job.state = 'ready' AND job.run_at <= now()
          AND NOT job.id = ANY (%(leaving)s::bigint[])
        LIMIT 1
    ) AS due
    WHERE (%(queues)s::text[] IS NULL OR lane.queue = ANY (%(queues)s::text[]))
      AND NOT EXISTS (
          SELECT FROM {schema}.queue AS settings WHERE settings.name = lane.queue AND settings.paused_at IS NOT NULL
      )
) AND NOT EXISTS (
    SELECT
    FROM {schema}.queue AS settings
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.group_ready AS turn
        WHERE turn.queue = settings.name
          AND (turn.due_at <= now()
               -- Due, but its group's rate keeps it waiting, or its row is locked.
               OR (settings.group_rate_jobs IS NOT NULL OR turn.due_at <= now() + interval '1 second')
                  AND CASE WHEN settings.group_mode = 'ordered' AND settings.group_retry IS DISTINCT FROM 'pass'
                           THEN (SELECT head.run_at FROM {schema}.job AS head
                                 WHERE head.queue = turn.queue AND head.group_key = turn.group_key AND head.state = 'waiting'
                                 ORDER BY head.id LIMIT 1)
                           ELSE (SELECT head.run_at FROM {schema}.job AS head
                                 WHERE head.queue = turn.queue AND head.group_key = turn.group_key AND head.state = 'waiting'
                                 ORDER BY head.run_at, head.id LIMIT 1) END <= now())
        LIMIT 1
    ) AS due
    WHERE settings.paused_at IS NULL AND (%(queues)s::text[] IS NULL OR settings.name = ANY (%(queues)s::text[]))
)
