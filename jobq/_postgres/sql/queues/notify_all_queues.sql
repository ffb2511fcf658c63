-- Tells the workers, at the commit, that what is set for queues has changed.
-- Not in a transaction that is to be prepared (notify_insert.sql): workers then read the rules when they look of themselves.
-- Plan: one Result; no table read.
SELECT pg_notify(%(schema)s::text, 'queues')
WHERE coalesce(current_setting('jobq.notify', true), '') <> 'off'
