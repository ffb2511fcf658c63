-- Releases the keys of the ended jobs in the CTE $jobs, except keys that are held for a period.
DELETE FROM {schema}.job_key
WHERE key = ANY (ARRAY(SELECT key FROM $jobs WHERE key IS NOT NULL))
  AND job_id = ANY (ARRAY(SELECT id FROM $jobs WHERE key IS NOT NULL))
  AND holds <> 'period'
