-- Puts dead jobs back: the same id, attempt and crashes from 0, claims kept (they are the fence), due now. A key's text
-- stays with the job, the key itself is not taken again. SKIP LOCKED, and in the order of ids: two operators never wait for
-- each other.
-- Plan: job_history_id_idx of the partitions of the three states, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, state, attempt FROM {schema}.job_history
    WHERE id = ANY(%(ids)s) AND state IN ('failed', 'cancelled', 'expired')
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.job_history
    WHERE id = ANY(ARRAY(SELECT id FROM chosen)) AND state IN ('failed', 'cancelled', 'expired')
    RETURNING id, claims, max_attempts, priority, queue, task, created_at, timeout, key, group_key, args, headers
), back AS (
    INSERT INTO {schema}.job (id, claims, max_attempts, priority, queue, task, run_at, created_at, timeout, key, group_key,
                              args, headers)
    SELECT id, claims, max_attempts, priority, queue, task, clock_timestamp(), created_at, timeout, key, group_key, args, headers
    FROM gone
    ORDER BY id
    RETURNING id, state, attempt
)
SELECT back.id, jsonb_build_object('state', chosen.state, 'attempt', chosen.attempt) AS before,
       jsonb_build_object('state', back.state, 'attempt', back.attempt) AS after
FROM back JOIN chosen USING (id)
