-- Returns the states of some jobs, to say why one was refused.
-- Plan: job_pkey and each partition's job_history_id_idx.
SELECT id, CASE WHEN state = 'ready' AND run_at > clock_timestamp() THEN 'scheduled' ELSE state END AS state
FROM {schema}.job WHERE id = ANY(%(ids)s)
UNION ALL
SELECT id, state FROM {schema}.job_history WHERE id = ANY(%(ids)s)
