-- Takes the oldest signal of a name for a durable job, and stores it as the step's result, or stores that the step waits. Signals to the
-- job itself come before signals to its workflow's run. Under the fence of steps_write.sql.
-- The first request for a step sets its timeout.
--
-- The job is locked. So the job is not put back, and not made due by wake_waiting.sql, while a request that its execution has left
-- behind (a coroutine that was cancelled, a lost connection) is still under way: after it is put back, its steps do not change until
-- its next execution.
-- The step is written before the signal is marked, and decides. If another request for the same step, on a connection that was
-- lost, has ended meanwhile, no signal is taken.
-- Returns the step as it is afterwards; no row: the execution does not hold the job, or such a request has ended.
-- Plan: Index Scan using job_pkey, job_signal_job_idx; no Seq Scan.
WITH owned AS MATERIALIZED (
    SELECT job.id, node.workflow_id
    FROM {schema}.job AS job LEFT JOIN {schema}.workflow_node AS node ON node.id = job.node_id
    WHERE job.id = %(id)s::bigint AND job.claims = %(claims)s::integer AND job.worker_id = %(worker)s::uuid
      AND job.started_at = to_timestamp(%(started)s::bigint / 1e6::float8)
    FOR NO KEY UPDATE OF job
), mine AS MATERIALIZED (
    SELECT step.state, step.wake_at, step.result, step.started_at FROM {schema}.job_step AS step
    WHERE step.job_id = %(id)s::bigint AND step.kind = 'signal' AND step.name = %(name)s::text AND step.args_hash = %(hash)s::text
      AND step.number = %(number)s::integer
), own AS MATERIALIZED (
    SELECT signal.id, signal.payload, signal.sent_by FROM {schema}.job_signal AS signal
    WHERE signal.job_id = (SELECT id FROM owned) AND signal.name = %(name)s::text AND signal.taken_at IS NULL
      AND NOT EXISTS (SELECT FROM mine WHERE mine.state <> 'waiting')
    ORDER BY signal.id LIMIT 1 FOR UPDATE SKIP LOCKED
), common AS MATERIALIZED (
    SELECT signal.id, signal.payload, signal.sent_by FROM {schema}.job_signal AS signal
    WHERE signal.workflow_id = (SELECT workflow_id FROM owned) AND signal.name = %(name)s::text AND signal.taken_at IS NULL
      AND NOT EXISTS (SELECT FROM mine WHERE mine.state <> 'waiting') AND NOT EXISTS (SELECT FROM own)
    ORDER BY signal.id LIMIT 1 FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id, payload, jsonb_build_object('id', id, 'by', sent_by)::text AS sent
    FROM (SELECT * FROM own UNION ALL SELECT * FROM common) AS either
), found AS MATERIALIZED (
    SELECT owned.id, owned.workflow_id, chosen.payload, chosen.sent,
           CASE WHEN chosen.payload IS NOT NULL THEN 'done'
                WHEN coalesce(mine.wake_at <= clock_timestamp(), %(timeout)s::double precision <= 0) THEN 'timed_out'
                ELSE 'waiting' END AS state,
           coalesce(mine.wake_at, CASE WHEN mine.state IS NULL THEN clock_timestamp() + %(timeout)s::double precision * interval '1 second' END)
               AS wake_at
    FROM owned LEFT JOIN chosen ON true LEFT JOIN mine ON true
), written AS (
    INSERT INTO {schema}.job_step AS kept (
        job_id, kind, name, args_hash, number, place, state, started_at, finished_at, args, result, wake_at, attempt, workflow_id)
    SELECT id, 'signal', %(name)s::text, %(hash)s::text, %(number)s::integer, %(place)s::integer, state, clock_timestamp(),
           CASE WHEN state <> 'waiting' THEN clock_timestamp() END, sent, payload, wake_at, %(attempt)s::integer, workflow_id
    FROM found
    ON CONFLICT (job_id, kind, name, args_hash, number) DO UPDATE
    SET state = excluded.state, finished_at = excluded.finished_at, args = excluded.args, result = excluded.result
    WHERE kept.state = 'waiting'
    RETURNING state, result::text AS result, extract(epoch FROM wake_at - clock_timestamp())::double precision AS seconds_left
), taken AS (
    UPDATE {schema}.job_signal AS signal SET taken_at = clock_timestamp(), taken_by = %(id)s::bigint
    WHERE signal.id = ANY (ARRAY(SELECT id FROM chosen)) AND EXISTS (SELECT FROM written)
)
SELECT state, result, seconds_left FROM written
UNION ALL
SELECT mine.state, mine.result::text, NULL FROM mine CROSS JOIN owned WHERE mine.state <> 'waiting'
