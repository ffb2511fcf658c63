-- Lets the running jobs of a queue count against its limits from now on, and returns how many it could not get, because
-- their rows are locked, mostly by what ends them. It does not wait (docs/architecture.md, "Nothing waits for a job's row").
-- Plan: job_running_idx, as many rows as workers have slots; then job_pkey. Sort: of these rows.
WITH running AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE state = 'running' AND queue = %(queue)s::text AND NOT managed
    ORDER BY worker_id
), locked AS MATERIALIZED (
    SELECT id FROM {schema}.job
    WHERE id = ANY (ARRAY(SELECT id FROM running)) AND state = 'running' AND NOT managed
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), counted AS (
    UPDATE {schema}.job SET managed = true, permit = NULL WHERE id = ANY (ARRAY(SELECT id FROM locked ORDER BY id)) RETURNING id
)
SELECT (SELECT count(*) FROM running) - (SELECT count(*) FROM counted) AS missed
