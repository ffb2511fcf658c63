-- The rows of job_wakeup that wake_waiting.sql would take.
-- Plan: job_wakeup_pkey.
SELECT id FROM {schema}.job_wakeup WHERE id <> ALL (%(left_out)s::bigint[]) ORDER BY id LIMIT %(most)s
