-- Returns the queues that no plain claim may read: paused queues, and limited ones, whose jobs are
-- claimed by claim_limited (also a queue whose rule for groups was removed, until its last ready
-- group is claimed).
-- Plan: one pass over the queues that have a row of their own; group_ready by its index; no table of jobs.
SELECT name, paused, limited
FROM (
    SELECT settings.name, settings.paused_at IS NOT NULL AS paused,
           settings.max_running IS NOT NULL OR settings.rate_jobs IS NOT NULL OR settings.group_mode IS NOT NULL
           OR EXISTS (SELECT FROM {schema}.group_ready WHERE group_ready.queue = settings.name) AS limited
    FROM {schema}.queue AS settings
) AS rules
WHERE paused OR limited
