-- Deletes keys whose period is over, which keys_expired.sql has locked in this transaction. Returns how many.
-- Plan: job_key_pkey; no Seq Scan.
WITH gone AS (
    DELETE FROM {schema}.job_key WHERE key = ANY (%(keys)s) RETURNING key
)
SELECT count(*) FROM gone
