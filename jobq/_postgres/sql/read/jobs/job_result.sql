-- One job's state, result and error. History is read only when no live job has the id: its index has a part a day.
-- Plan: index scans by id; the history's below a one-time filter.
SELECT live.state, NULL AS result, NULL AS error
FROM {schema}.job AS live
WHERE live.id = %(id)s
UNION ALL
SELECT finished.state, finished.result::text, finished.error
FROM {schema}.job_history AS finished
WHERE finished.id = %(id)s AND NOT (SELECT EXISTS (SELECT FROM {schema}.job AS live WHERE live.id = %(id)s))
