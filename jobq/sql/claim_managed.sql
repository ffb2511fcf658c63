-- Claims jobs of one managed queue; migrations/sql/0003_groups.sql has the function, its rows and its plan.
-- Plan: one function scan.
SELECT id, claims, task, queue, args, attempt, max_attempts, crashes, timeout, headers, expired, run_alone, releases
FROM {schema}.claim_managed(%(worker)s, %(queue)s, %(want)s)
