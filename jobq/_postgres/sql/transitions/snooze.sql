-- Changes the start time of ready jobs, never to the past, and notifies the workers of their
-- queues, because the next due job that they know has changed. Jobs that wait for their group are
-- changed in the same way: the group then becomes ready at the new time.
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
        -- A job that waits for other code in a queue with rules is not made due before that
        -- (parked_due.sql).
        parked_claims = CASE WHEN state = 'parked' THEN parked_claims END
    WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, run_at, state, group_key
), turned AS (
    INSERT INTO {schema}.group_ready (queue, group_key, due_at)
    SELECT queue, group_key, run_at FROM snoozed WHERE state = 'waiting'
), woken AS MATERIALIZED (
    --include notify_queues
    (SELECT DISTINCT queue FROM snoozed WHERE state <> 'parked') AS fresh
)
SELECT snoozed.id, jsonb_build_object('run_at', chosen.run_at) AS before, jsonb_build_object('run_at', snoozed.run_at) AS after
FROM snoozed JOIN chosen USING (id)
WHERE (SELECT count(*) FROM woken) >= 0
