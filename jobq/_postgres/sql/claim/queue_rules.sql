-- The queues that no plain claim may read: which are paused, and which are managed, so that their jobs are claimed by claim_managed
-- (one whose rule for groups was taken away, until the last turn is taken).
-- Plan: one pass over the queues that have a row of their own; job_turn by its index; no table of jobs.
SELECT name, paused, managed
FROM (
    SELECT settings.name, settings.paused_at IS NOT NULL AS paused,
           settings.max_running IS NOT NULL OR settings.rate_jobs IS NOT NULL OR settings.group_mode IS NOT NULL
           OR EXISTS (SELECT FROM {schema}.job_turn WHERE job_turn.queue = settings.name) AS managed
    FROM {schema}.queue AS settings
) AS rules
WHERE paused OR managed
