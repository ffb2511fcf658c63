-- Returns one job's state, attempts, progress and last error. A released attempt does not count,
-- and its error is not the job's.
-- Plan: index scans by id; the history's below a one-time filter; job_attempt_job_id_idx of each partition.
SELECT live.state, live.attempt, live.max_attempts,
       extract(epoch FROM live.run_at - clock_timestamp())::double precision AS due_in,
       live.progress ->> 'done' AS done, live.progress ->> 'total' AS total, NULL AS error, last.error_type, last.message
FROM {schema}.job AS live
LEFT JOIN LATERAL (
    SELECT error_type, message FROM {schema}.job_attempt
    WHERE job_id = live.id AND outcome <> 'released' ORDER BY finished_at DESC, claims DESC LIMIT 1
) AS last ON true
WHERE live.id = %(id)s
UNION ALL
SELECT finished.state, finished.attempt, finished.max_attempts, NULL, NULL, NULL, finished.error, last.error_type, last.message
FROM {schema}.job_history AS finished
LEFT JOIN LATERAL (
    SELECT error_type, message FROM {schema}.job_attempt
    WHERE job_id = finished.id AND claims = finished.claims AND finished.state <> 'succeeded' LIMIT 1
) AS last ON true
WHERE finished.id = %(id)s AND NOT (SELECT EXISTS (SELECT FROM {schema}.job AS live WHERE live.id = %(id)s))
