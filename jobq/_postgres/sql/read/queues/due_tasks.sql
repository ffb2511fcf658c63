-- Counts due jobs by task and queue, among the first jobs of each lane and of each queue's waiting
-- jobs: about `budget` jobs in all, and at least 2 of each. If there are more than were looked at,
-- `whole` is false. `queue`: only this queue (NULL: all).
-- Parked jobs are in parked_tasks.sql.
-- Plan: a loose index scan hops over job_claim_idx from one (queue, priority) to the next; the beginnings of the lanes' ranges, and of
-- the queues' in job_waiting_due_idx.
WITH RECURSIVE pair AS (
    (SELECT job.queue, job.priority FROM {schema}.job
     WHERE job.state = 'ready' AND job.queue >= coalesce(%(queue)s::text, '') ORDER BY job.queue, job.priority LIMIT 1)
    UNION ALL
    SELECT following.queue, following.priority
    FROM pair
    CROSS JOIN LATERAL (
        SELECT job.queue, job.priority FROM {schema}.job
        WHERE job.state = 'ready' AND (job.queue, job.priority) > (pair.queue, pair.priority)
        ORDER BY job.queue, job.priority LIMIT 1
    ) AS following
    WHERE %(queue)s::text IS NULL OR pair.queue = %(queue)s::text
), few AS MATERIALIZED (
    SELECT * FROM pair WHERE %(queue)s::text IS NULL OR pair.queue = %(queue)s::text LIMIT 5000
), named AS MATERIALIZED (
    SELECT queue.name FROM {schema}.queue WHERE %(queue)s::text IS NULL OR queue.name = %(queue)s::text ORDER BY queue.name LIMIT 5000
), cap AS MATERIALIZED (
    SELECT greatest(2, %(budget)s / greatest((SELECT count(*) FROM few) + (SELECT count(*) FROM named), 1)) AS entries
), sample AS (
    SELECT few.queue, entry.task, entry.run_at, entry.number
    FROM few
    CROSS JOIN LATERAL (
        SELECT job.task, job.run_at, row_number() OVER () AS number FROM (
            SELECT job.task, job.run_at FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = few.queue AND job.priority = few.priority AND job.run_at <= statement_timestamp()
            ORDER BY job.run_at, job.id LIMIT (SELECT entries FROM cap)
        ) AS job
    ) AS entry
    UNION ALL
    SELECT named.name, entry.task, entry.run_at, entry.number
    FROM named
    CROSS JOIN LATERAL (
        SELECT job.task, job.run_at, row_number() OVER () AS number FROM (
            SELECT job.task, job.run_at FROM {schema}.job
            WHERE job.state = 'waiting' AND job.queue = named.name
            ORDER BY job.queue, job.group_key, job.run_at LIMIT (SELECT entries FROM cap)
        ) AS job
    ) AS entry
    WHERE entry.run_at <= statement_timestamp()
)
SELECT sample.queue, sample.task, count(*)::integer AS number, max(sample.number) < (SELECT entries FROM cap) AS whole,
       extract(epoch FROM clock_timestamp() - min(sample.run_at))::double precision AS oldest_seconds
FROM sample
GROUP BY sample.queue, sample.task
ORDER BY sample.queue, sample.task
LIMIT 5000
