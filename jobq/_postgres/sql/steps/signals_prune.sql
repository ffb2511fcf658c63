-- Removes signals whose target is gone. Locked rows are left to the next pass. Returns the number of removed rows.
-- Plan: Index Scan using job_signal_pkey, twice. No Seq Scan.
WITH removed AS (
    DELETE FROM {schema}.job_signal
    WHERE id = ANY (ARRAY(SELECT id FROM {schema}.job_signal WHERE id = ANY (%(ids)s::bigint[]) FOR UPDATE SKIP LOCKED))
    RETURNING id
)
SELECT count(*) FROM removed
