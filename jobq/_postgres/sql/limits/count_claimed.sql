-- Counts the jobs that this worker runs of these queues against the limits: jobs that it claimed
-- before it knew that the queues have limits. A job that an earlier claim has counted keeps that
-- claim's number. A caller of claim_limited may know that claim as past, so the number is cleared.
-- A job with a locked row is skipped; it is about to end.
-- Plan: job_running_idx, as many rows as the worker has slots; then job_pkey. Sort: of these rows.
WITH mine AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE state = 'running' AND worker_id = %(worker)s::uuid AND queue = ANY (%(queues)s::text[])
      AND (NOT limited OR permit IS NOT NULL)
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {schema}.job SET limited = true, permit = NULL WHERE id = ANY (ARRAY(SELECT id FROM mine)) RETURNING id, queue
