-- Returns what a queue does next: its due jobs in the order of claims, at most `bound` of them, by
-- task.
-- Plan: the beginnings of the lanes' ranges of job_claim_idx.
SELECT next.task, count(*) AS number
FROM (
    SELECT entry.task
    FROM generate_series(9, 0, -1) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT job.task FROM {schema}.job
        WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
          AND job.run_at <= statement_timestamp()
        ORDER BY job.run_at, job.id LIMIT %(bound)s
    ) AS entry
    LIMIT %(bound)s
) AS next
GROUP BY next.task
ORDER BY number DESC, next.task
