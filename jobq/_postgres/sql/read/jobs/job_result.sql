-- Returns one job's state, result and error. History is read only if no live job has the id,
-- because its index has one part per day.
-- Plan: index scans by id; the history's below a one-time filter.
SELECT live.state, NULL AS result, NULL AS error
FROM {schema}.job AS live
WHERE live.id = %(id)s
UNION ALL
SELECT finished.state, finished.result::text, finished.error
FROM {schema}.job_history AS finished
WHERE finished.id = %(id)s AND NOT (SELECT EXISTS (SELECT FROM {schema}.job AS live WHERE live.id = %(id)s))
