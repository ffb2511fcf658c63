-- Returns every queue with its depth: jobs that are due, scheduled, running and failed, and the
-- actor that paused it.
-- `due` counts due jobs in every state: ready, waiting for their group, parked (including those
-- that were put back into a queue with rules and are tried again in seconds). `oldest` is the
-- oldest of them. Of the waiting jobs it looks at the first `entries`, and if there are more, at
-- the heads of a fiftieth as many groups.
-- All queues together count about `budget` entries of each kind, so each counts at most
-- `counted_to` + 1 of them: `bound` if there are few queues, five hundred if there are many, a
-- hundred beyond 400. The totals over all queues are counted up to `bound`, whatever the number of
-- queues.
-- Plan: a loose index scan hops over job_claim_idx from one (queue, priority) to the next, and counts entries of its ranges;
-- running by job_running_idx; waiting by job_waiting_due_idx; parked by job_parked_idx; failed by the newest `bound` entries of job_history_id_idx.
WITH RECURSIVE pair AS (
    (SELECT job.queue, job.priority FROM {schema}.job WHERE job.state = 'ready' ORDER BY job.queue, job.priority LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority
    FROM pair
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (pair.queue, pair.priority)
        ORDER BY job.queue, job.priority LIMIT 1
    ) AS following
), few AS MATERIALIZED (
    SELECT * FROM pair LIMIT 5000
), cap AS MATERIALIZED (
    SELECT least(%(bound)s, CASE WHEN size.number > 400 THEN 101 ELSE greatest(1, %(budget)s / 500 / greatest(size.number, 1)) * 500 + 1 END)
               AS entries
    FROM (SELECT (SELECT count(DISTINCT few.queue) FROM few)
                 + (SELECT count(*) FROM {schema}.queue WHERE group_mode IS NOT NULL) AS number) AS size
), total AS MATERIALIZED (
    SELECT (SELECT count(*) FROM (
                SELECT FROM few
                CROSS JOIN LATERAL (
                    SELECT FROM {schema}.job
                    WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at <= statement_timestamp()
                    ORDER BY job.run_at LIMIT %(bound)s
                ) AS entry
                LIMIT %(bound)s
            ) AS counted) AS ready,
           (SELECT count(*) FROM (
                SELECT FROM few
                CROSS JOIN LATERAL (
                    SELECT FROM {schema}.job
                    WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at > statement_timestamp()
                    ORDER BY job.run_at LIMIT %(bound)s
                ) AS entry
                LIMIT %(bound)s
            ) AS counted) AS scheduled
), lane AS MATERIALIZED (
    SELECT few.queue, due.number AS ready, later.number AS scheduled, due.oldest
    FROM few
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, min(entry.run_at) AS oldest FROM (
            SELECT job.run_at FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at <= statement_timestamp()
            ORDER BY job.run_at LIMIT (SELECT entries FROM cap)
        ) AS entry
    ) AS due
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at > statement_timestamp()
            ORDER BY job.run_at LIMIT (SELECT entries FROM cap)
        ) AS entry
    ) AS later
), depth AS (
    SELECT lane.queue, least(sum(lane.ready), (SELECT entries FROM cap)) AS ready,
           least(sum(lane.scheduled), (SELECT entries FROM cap)) AS scheduled, min(lane.oldest) AS oldest
    FROM lane
    GROUP BY lane.queue
), running AS (
    SELECT entry.queue, count(*) AS number
    FROM (SELECT job.queue FROM {schema}.job WHERE job.state = 'running' LIMIT %(bound)s) AS entry
    GROUP BY entry.queue
), failed AS (
    SELECT entry.queue, count(*) AS number
    FROM (SELECT queue FROM {schema}.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT %(bound)s) AS entry
    GROUP BY entry.queue
), waiting AS (
    -- Jobs wait for their group if the queue has, or had, a rule for groups: such a queue has a
    -- row.
    SELECT entry.name, counted.number, counted.due, least(counted.oldest, heads.oldest) AS oldest
    FROM (SELECT queue.name FROM {schema}.queue ORDER BY queue.name LIMIT 5000) AS entry
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, count(*) FILTER (WHERE found.run_at <= statement_timestamp()) AS due,
               min(found.run_at) AS oldest
        FROM (
            SELECT job.run_at FROM {schema}.job WHERE job.state = 'waiting' AND job.queue = entry.name
            ORDER BY job.queue, job.group_key, job.run_at LIMIT (SELECT entries FROM cap)
        ) AS found
    ) AS counted
    CROSS JOIN LATERAL (
        WITH RECURSIVE head AS (
            (SELECT job.group_key, job.run_at FROM {schema}.job
             WHERE job.state = 'waiting' AND job.queue = entry.name AND counted.number = (SELECT entries FROM cap)
             ORDER BY job.queue, job.group_key, job.run_at LIMIT 1)
            UNION ALL
            SELECT following.group_key, following.run_at
            FROM head
            CROSS JOIN LATERAL (
                SELECT job.group_key, job.run_at FROM {schema}.job
                WHERE job.state = 'waiting' AND job.queue = entry.name AND job.group_key > head.group_key
                ORDER BY job.queue, job.group_key, job.run_at LIMIT 1
            ) AS following
        )
        SELECT min(top.run_at) AS oldest FROM (SELECT head.run_at FROM head LIMIT (SELECT entries / 50 + 1 FROM cap)) AS top
    ) AS heads
), parked AS (
    SELECT entry.queue, count(*) FILTER (WHERE entry.state = 'parked') AS number,
           count(*) FILTER (WHERE entry.due) AS due, min(least(entry.run_at, entry.parked_at)) FILTER (WHERE entry.due) AS oldest
    FROM (
        SELECT job.queue, job.state, job.run_at, job.parked_at,
               -- Jobs that are parked and due, or were put back for a moment. Other due jobs are
               -- counted as ready or waiting.
               (job.state = 'parked') = (job.run_at <= statement_timestamp()) AS due
        FROM {schema}.job
        WHERE
            --include parked_jobs
        LIMIT %(bound)s
    ) AS entry
    GROUP BY entry.queue
), name AS (
    SELECT queue FROM depth
    UNION SELECT queue FROM parked
    UNION SELECT queue FROM running
    UNION SELECT queue FROM failed
    UNION SELECT name FROM {schema}.queue
    UNION SELECT unnest(queues) FROM {schema}.worker
)
SELECT name.queue AS name,
       coalesce(depth.ready, 0)::integer AS ready,
       coalesce(depth.scheduled, 0)::integer AS scheduled,
       coalesce(running.number, 0)::integer AS running,
       coalesce(failed.number, 0)::integer AS failed,
       (coalesce(depth.ready, 0) + coalesce(waiting.due, 0) + coalesce(parked.due, 0))::integer AS due,
       -- A job that is not due yet has no age.
       extract(epoch FROM now() - least(depth.oldest, parked.oldest, CASE WHEN waiting.oldest <= statement_timestamp() THEN waiting.oldest END))::double precision
           AS oldest_ready_seconds,
       extract(epoch FROM now() - depth.oldest)::double precision AS oldest_unheld_seconds,
       queue.paused_at, queue.paused_by, queue.pause_reason,
       queue.max_running, queue.rate_jobs, queue.rate_seconds, queue.rate_burst, queue.group_mode, queue.group_limit,
       queue.group_retry, queue.group_rate_jobs, queue.group_rate_seconds, queue.group_rate_burst, queue.changed_at,
       coalesce(waiting.number, 0)::integer AS waiting, coalesce(parked.number, 0)::integer AS parked,
       cap.entries::integer - 1 AS counted_to, total.ready::integer AS ready_total, total.scheduled::integer AS scheduled_total
FROM name
CROSS JOIN cap
CROSS JOIN total
LEFT JOIN depth ON depth.queue = name.queue
LEFT JOIN running ON running.queue = name.queue
LEFT JOIN failed ON failed.queue = name.queue
LEFT JOIN {schema}.queue ON queue.name = name.queue
LEFT JOIN waiting ON waiting.name = name.queue
LEFT JOIN parked ON parked.queue = name.queue
ORDER BY name.queue
LIMIT 5000
