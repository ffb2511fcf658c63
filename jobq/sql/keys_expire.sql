-- Delete a batch of keys whose period is over. The table is read once, in its physical order; keys in use are skipped.
WITH gone AS (
    DELETE FROM {schema}.job_key
    WHERE key = ANY (ARRAY(
        SELECT key FROM {schema}.job_key WHERE until <= now() LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
    RETURNING key
)
SELECT count(*) FROM gone
