-- Returns the groups that group_ready_repair.sql looks at. If all together are refused, they are
-- handled in parts.
-- Plan: Index Scan using job_waiting_idx, in a recursion; no Seq Scan on job.
WITH RECURSIVE found (queue, group_key, n) AS (
    (SELECT queue, group_key, 1 FROM {schema}.job
     WHERE state = 'waiting' AND group_key IS NOT NULL
       AND (queue, group_key) > (%(after_queue)s::text, %(after_group)s::text)
     ORDER BY queue, group_key, id LIMIT 1)
    UNION ALL
    SELECT following.queue, following.group_key, found.n + 1
    FROM found
    CROSS JOIN LATERAL (
        SELECT job.queue, job.group_key FROM {schema}.job AS job
        WHERE job.state = 'waiting' AND job.group_key IS NOT NULL
          AND (job.queue, job.group_key) > (found.queue, found.group_key)
        ORDER BY job.queue, job.group_key, job.id LIMIT 1
    ) AS following
    WHERE found.n < %(most)s
)
SELECT queue, group_key FROM found ORDER BY n
