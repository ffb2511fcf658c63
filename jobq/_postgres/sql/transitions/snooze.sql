-- Lets ready jobs start at another time, never in the past, and tells the workers of their queues: what they know of the next
-- due job is no longer so. The same for jobs that wait for their group's turn, which then comes with the new time.
-- Plan: job_pkey, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, run_at FROM {schema}.job
    WHERE id = ANY(%(ids)s) AND state IN ('ready', 'waiting', 'parked')
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), snoozed AS (
    UPDATE {schema}.job
    SET run_at = greatest(
        coalesce(%(until)s::timestamptz, clock_timestamp() + %(seconds)s::double precision * interval '1 second'),
        clock_timestamp()),
        -- A job that waits in a queue with rules for other code is not made due before that (parked_due.sql).
        parked_claims = CASE WHEN state = 'parked' THEN parked_claims END
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, run_at, state, group_key
), turned AS (
    INSERT INTO {schema}.job_turn (queue, group_key, due_at)
    SELECT queue, group_key, run_at FROM snoozed WHERE state = 'waiting'
), woken AS MATERIALIZED (
    SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM (SELECT DISTINCT queue FROM snoozed WHERE state <> 'parked') AS fresh
)
SELECT snoozed.id, jsonb_build_object('run_at', chosen.run_at) AS before, jsonb_build_object('run_at', snoozed.run_at) AS after
FROM snoozed JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
