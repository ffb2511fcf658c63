-- Starts claimed jobs that hold their keys until the start: one commit releases the keys and
-- returns the arguments that the last `replace` has left. Same fence as ack_and_claim.sql. If a
-- caller's transaction has locked a row (`replace` or `return`, until its commit), the statement
-- does not wait for it.
-- Returns for each job a verdict (start; locked: try again; later: a `replace` has moved it, or it
-- is to be cancelled; expired; lost: no longer this worker's), and its arguments and headers.
-- Plan: Index Scan using job_pkey under LockRows; job_key_pkey; no Seq Scan on job or job_key.
WITH free AS MATERIALIZED (
    SELECT job.id, job.claims, job.worker_id, job.started_at, job.key, job.args, job.headers, job.run_at, job.expires_at, job.cancel_requested_at
    FROM {schema}.job AS job
    WHERE job.id = ANY (%(ids)s::bigint[])
    ORDER BY job.id
    FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT asked.id, free.key, free.args, free.headers,
           CASE WHEN free.id IS NULL THEN 'locked'
                WHEN free.claims <> asked.claims OR free.worker_id IS DISTINCT FROM %(worker)s::uuid
                     OR free.started_at IS DISTINCT FROM to_timestamp(asked.started / 1e6::float8) THEN 'lost'
                WHEN free.cancel_requested_at IS NOT NULL OR free.run_at > clock_timestamp() THEN 'later'
                WHEN free.expires_at <= clock_timestamp() THEN 'expired'
                ELSE 'start' END AS verdict
    FROM unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[]) AS asked (id, claims, started)
    LEFT JOIN free ON free.id = asked.id
), started AS (
    UPDATE {schema}.job AS job SET key_until_started = false
    WHERE job.id = ANY (ARRAY(SELECT id FROM judged WHERE verdict = 'start'))
), released AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(SELECT key FROM judged WHERE verdict = 'start'))
      AND job_id = ANY (ARRAY(SELECT id FROM judged WHERE verdict = 'start'))
      AND holds = 'until_started'
)
SELECT judged.id,
       -- Jobs that are missing among the locked ones are gone. Jobs that were locked in this very
       -- moment are tried again.
       CASE WHEN judged.verdict = 'locked' AND NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = judged.id) THEN 'lost'
            ELSE judged.verdict END,
       judged.args::text, judged.headers::text
FROM judged
