-- Returns the newest signals that were sent to a job (`job`) or to a run of a workflow (`run`), at most `limit`. A payload that takes
-- more than `bytes` bytes as stored is NULL.
-- Plan: job: job_signal_job_idx backwards up to the limit; run: job_signal_workflow_idx.
SELECT id, job_id, workflow_id, name, sent_at, sent_by, taken_at, taken_by,
       CASE WHEN pg_column_size(payload) <= %(bytes)s THEN payload::text END AS payload, pg_column_size(payload) AS payload_bytes
FROM {schema}.job_signal
--job WHERE job_id = %(id)s::bigint
--run WHERE workflow_id = %(id)s::bigint
ORDER BY id DESC LIMIT %(limit)s
