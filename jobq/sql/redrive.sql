-- Puts dead jobs back: the same id, attempt and crashes from 0, claims kept (they are the fence), due now. A job that had a key
-- takes it again; one whose key is held by another job stays dead, and `refusal` says so. SKIP LOCKED, and in the order of ids: two
-- operators never wait for each other, and of two dead jobs with one key the older one gets it.
-- Plan: job_history_id_idx of the partitions of the three states, twice.
WITH chosen AS MATERIALIZED (
    SELECT id, state, attempt, task, key, key_holds, key_scope FROM {schema}.job_history
    WHERE id = ANY(%(ids)s) AND state IN ('failed', 'cancelled', 'expired')
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), keyed AS MATERIALIZED (
    SELECT id, state, attempt, key,
           CASE WHEN key IS NULL THEN id ELSE {schema}.take_key(key, id, coalesce(key_holds, 'until_finished'), task, key_scope) END AS holder
    FROM chosen
), gone AS (
    DELETE FROM {schema}.job_history
    WHERE id = ANY(ARRAY(SELECT id FROM keyed WHERE holder = id)) AND state IN ('failed', 'cancelled', 'expired')
    RETURNING id, claims, max_attempts, priority, queue, task, created_at, timeout, key, key_holds, key_scope, group_key, args, headers
), back AS (
    INSERT INTO {schema}.job (id, claims, max_attempts, priority, queue, task, run_at, created_at, timeout, key, key_holds,
                              key_until_started, key_scope, group_key, args, headers)
    SELECT id, claims, max_attempts, priority, queue, task, clock_timestamp(), created_at, timeout, key,
           CASE WHEN key IS NOT NULL THEN coalesce(key_holds, 'until_finished') END,
           coalesce(key_holds = 'until_started', false), key_scope, group_key, args, headers
    FROM gone
    ORDER BY id
    RETURNING id, state, attempt
)
SELECT back.id, jsonb_build_object('state', keyed.state, 'attempt', keyed.attempt) AS before,
       jsonb_build_object('state', back.state, 'attempt', back.attempt) AS after, NULL AS refusal
FROM back JOIN keyed USING (id)
UNION ALL
SELECT id, NULL, NULL,
       'key ' || quote_literal(key) || CASE WHEN holder IS NULL THEN ' is being taken by another job at this moment: try again'
                                            ELSE ' is held by job ' || holder END
FROM keyed WHERE holder IS DISTINCT FROM id
