-- Acknowledges successes and claims new jobs: one statement, one commit.
--
-- The fence is (id, claims, worker_id, started_at). It includes `started_at` because a failover may
-- issue the others a second time. It is in microseconds, which to_timestamp returns exactly in this
-- century. The fence does not name `state`: the planner would then take the partial index of
-- running jobs and walk its dead entries.
-- A claim reads each lane (queue, priority) through job_claim_idx in order, from the position set
-- by cursor.py (so it does not walk the dead entries of earlier claims) to now() (so it never reads
-- future jobs). It pulls only as many rows as it takes. `= ANY (ARRAY(…))`: once the plan is
-- generic, an update joined to a CTE would become a hash join over the whole table.
-- If a job with a group was claimed by claim_limited, its end makes its group ready again.
-- The variant `ack_and_claim:except` leaves out the jobs whose claims the database refuses
-- (refused_claims.py). Only that variant has the line.
-- Plan: Index Scan using job_claim_idx under LockRows and Limit; Index Scan using job_pkey; no
-- Sort, no Seq Scan on job.
-- The first row returned has the number of accepted outcomes. Then it has, as text, the values for
-- cursor.py: the time, the snapshot's bounds, how many transaction ids after 3 have been assigned,
-- and, if as many jobs as wanted were found, the lane (from 0), run_at and id of the last job; then
-- pairs of lane and number of jobs.
-- The other rows are the claimed jobs, with the columns of claim_limited.sql. `started` is NULL:
-- all were claimed at the time in the first row.
WITH finished AS (
    DELETE FROM {schema}.job AS job
    USING unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(results)s::text[],
                 %(seconds)s::double precision[]) AS done (id, claims, started, result, seconds)
    WHERE job.id = done.id
      AND job.claims = done.claims
      AND job.worker_id = %(worker)s
      AND job.started_at = to_timestamp(done.started / 1e6::float8)
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, now() - done.seconds * interval '1 second' AS started_at,
        'succeeded' AS state, now() AS finished_at, done.result::jsonb AS result, NULL::text AS error
), bound AS MATERIALIZED (
    -- Plain jobs have none of these. The parts below read this CTE instead of all jobs.
    SELECT id, key, queue, group_key, limited FROM finished WHERE key IS NOT NULL OR group_key IS NOT NULL
)
--include finish jobs=bound
, turned AS (
    --include group_ready jobs=bound when=limited
), heads AS MATERIALIZED (
    SELECT lane.n - 1 AS lane, head.run_at, head.id
    FROM
        --include lanes
    CROSS JOIN LATERAL (
        SELECT ready.run_at, ready.id
        FROM {schema}.job AS ready
        WHERE
          --include lane_entries
          AND ready.run_at <= now()
          --except AND NOT ready.id = ANY (%(refused)s::bigint[])
        ORDER BY ready.run_at, ready.id
        LIMIT %(want)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS head
    LIMIT %(want)s
), claimed AS (
    UPDATE {schema}.job AS job
    SET state = 'running', worker_id = %(worker)s, started_at = now(), progress = NULL,
        --include count_claim
    WHERE job.id = ANY (ARRAY(SELECT id FROM heads))
    RETURNING
        --include claimed_columns
)
SELECT (SELECT count(*) FROM finished), NULL,
       concat_ws(' ', (extract(epoch FROM now()) * 1000000)::bigint, pg_snapshot_xmin(seen), pg_snapshot_xmax(seen),
                 age('3'::xid),
                 (SELECT concat_ws(' ', lane, (extract(epoch FROM run_at) * 1000000)::bigint, id)
                  FROM heads OFFSET greatest(%(want)s - 1, 0) LIMIT 1)),
       (SELECT string_agg(concat_ws(' ', lane, jobs), ' ') FROM (SELECT lane, count(*) AS jobs FROM heads GROUP BY lane) AS lanes),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_current_snapshot() AS seen
UNION ALL
SELECT id, claims, task, queue, args::text, attempt, max_attempts, crashes, timeout, headers::text,
       expires_at <= now(), NULL::bigint, key_until_started, run_alone, releases
FROM claimed
