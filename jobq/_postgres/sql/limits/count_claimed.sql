-- Lets the jobs that this worker runs of these queues count against their limits: those that it claimed before it knew that the
-- queues have some. One that was counted at an earlier claim still has that claim's number, which a caller of claim_managed may
-- know as past: it loses it. A job with a locked row is left; it is about to end.
-- Plan: job_running_idx, as many rows as the worker has slots; then job_pkey. Sort: of these rows.
WITH mine AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE state = 'running' AND worker_id = %(worker)s::uuid AND queue = ANY (%(queues)s::text[])
      AND (NOT managed OR permit IS NOT NULL)
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {schema}.job SET managed = true, permit = NULL WHERE id = ANY (ARRAY(SELECT id FROM mine)) RETURNING id, queue
