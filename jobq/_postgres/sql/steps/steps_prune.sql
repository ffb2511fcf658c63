-- Removes steps of jobs that are gone, at most `most`. Locked rows are left to the next pass. Returns the number of removed rows.
-- Plan: Index Scan using job_step_pkey; Tid Scan. No Seq Scan.
WITH removed AS (
    DELETE FROM {schema}.job_step
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.job_step WHERE job_id = ANY (%(ids)s::bigint[]) LIMIT %(most)s FOR UPDATE SKIP LOCKED))
    RETURNING job_id
)
SELECT count(*) FROM removed
