-- Notifies the workers, at the commit, that the settings of queues have changed.
-- Not in a transaction that is to be prepared (notify_insert.sql): workers then read the rules at
-- their next regular look.
-- Plan: one Result; no table read.
SELECT pg_notify(%(schema)s::text, 'queues')
WHERE coalesce(current_setting('jobq.notify', true), '') <> 'off'
