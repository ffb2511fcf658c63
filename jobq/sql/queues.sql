-- Every queue with its depth: what is due, what is for later, what runs, what failed, who paused it.
-- All queues together count about `budget` entries of each kind, so each counts at most `counted_to` + 1 of them: `bound` where
-- queues are few, five hundred where they are many. The totals over all queues are counted up to `bound` whatever their number.
-- Plan: a loose index scan hops over job_claim_idx from one (queue, priority) to the next, and counts entries of its ranges;
-- running by job_running_idx; parked by job_parked_idx; failed by the newest `bound` entries of job_history_id_idx.
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
    SELECT * FROM pair LIMIT 2000
), cap AS MATERIALIZED (
    SELECT least(%(bound)s, greatest(1, %(budget)s / 500 / greatest(count(DISTINCT few.queue) + grouped.number, 1)) * 500 + 1) AS entries
    FROM (SELECT count(*) AS number FROM {schema}.queue WHERE group_mode IS NOT NULL) AS grouped LEFT JOIN few ON true
    GROUP BY grouped.number
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
), depth AS (
    SELECT lane.queue, due.number AS ready, later.number AS scheduled, first.run_at AS oldest
    FROM (SELECT DISTINCT few.queue FROM few) AS lane
    CROSS JOIN LATERAL (
        SELECT min(entry.run_at) AS run_at FROM few
        CROSS JOIN LATERAL (
            SELECT job.run_at FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at <= statement_timestamp()
            ORDER BY job.run_at LIMIT 1
        ) AS entry
        WHERE few.queue = lane.queue
    ) AS first
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM few
            CROSS JOIN LATERAL (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at <= statement_timestamp()
                ORDER BY job.run_at LIMIT (SELECT entries FROM cap)
            ) AS entry
            WHERE few.queue = lane.queue
            LIMIT (SELECT entries FROM cap)
        ) AS counted
    ) AS due
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM few
            CROSS JOIN LATERAL (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at > statement_timestamp()
                ORDER BY job.run_at LIMIT (SELECT entries FROM cap)
            ) AS entry
            WHERE few.queue = lane.queue
            LIMIT (SELECT entries FROM cap)
        ) AS counted
    ) AS later
), running AS (
    SELECT entry.queue, count(*) AS number
    FROM (SELECT job.queue FROM {schema}.job WHERE job.state = 'running' LIMIT %(bound)s) AS entry
    GROUP BY entry.queue
), failed AS (
    SELECT entry.queue, count(*) AS number
    FROM (SELECT queue FROM {schema}.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT %(bound)s) AS entry
    GROUP BY entry.queue
), waiting AS (
    -- Jobs wait for their group's turn where there is, or was, a rule for groups: such a queue has a row.
    SELECT entry.name, counted.number
    FROM (SELECT queue.name FROM {schema}.queue ORDER BY queue.name LIMIT 1000) AS entry
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM {schema}.job WHERE job.state = 'waiting' AND job.queue = entry.name
            ORDER BY job.queue, job.group_key LIMIT (SELECT entries FROM cap)
        ) AS found
    ) AS counted
), parked AS (
    SELECT entry.queue, count(*) AS number
    FROM (SELECT job.queue FROM {schema}.job WHERE job.parked_at IS NOT NULL AND job.state = 'parked' LIMIT %(bound)s) AS entry
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
       extract(epoch FROM now() - depth.oldest)::double precision AS oldest_ready_seconds,
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
LIMIT 1000
