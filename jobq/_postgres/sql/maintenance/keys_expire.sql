-- Deletes keys whose period is over and which keys_expired.sql has locked in this transaction.
-- Returns their number.
-- A key may be held in several scopes, and a job holds one: key and job together identify the
-- locked row.
-- Plan: job_key_pkey; no Seq Scan.
WITH gone AS (
    DELETE FROM {schema}.job_key AS held
    USING unnest(%(keys)s::text[], %(job_ids)s::bigint[]) AS old (key, job_id)
    WHERE held.key = old.key AND held.job_id = old.job_id
    RETURNING held.key
)
SELECT count(*) FROM gone
