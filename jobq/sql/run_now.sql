-- Makes jobs due that wait for a retry or for their time, and wakes the workers of their queues.
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state = 'ready' AND run_at > clock_timestamp()
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE {schema}.job SET run_at = clock_timestamp()
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM (SELECT DISTINCT queue FROM moved) AS fresh
)
SELECT moved.id FROM moved WHERE (SELECT count(*) FROM woken) >= 0
