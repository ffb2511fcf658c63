-- Releases the keys of the deleted jobs in the CTE `gone` or `finished`, including keys that are
-- held for a period.
DELETE FROM {schema}.job_key AS taken
USING $jobs AS gone
WHERE taken.key = gone.key AND taken.job_id = gone.id
