-- Counts the running jobs of a queue against its limits from now on. Returns how many it could not
-- count because their rows are locked, mostly by the transaction that ends them. It does not wait
-- (_worker/outcomes/README.md, "Nothing waits for a job's row").
-- Plan: job_running_idx, as many rows as workers have slots; then job_pkey. Sort: of these rows.
WITH running AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE state = 'running' AND queue = %(queue)s::text AND NOT limited
    ORDER BY worker_id
), locked AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE id = ANY (ARRAY(SELECT id FROM running)) AND state = 'running' AND NOT limited
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), counted AS (
    UPDATE {schema}.job SET limited = true, permit = NULL WHERE id = ANY (ARRAY(SELECT id FROM locked ORDER BY id)) RETURNING id
)
SELECT (SELECT count(*) FROM running) - (SELECT count(*) FROM counted) AS missed
