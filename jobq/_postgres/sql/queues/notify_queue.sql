-- Notifies the workers, at the commit, that queues have changed, and that there may be work in this
-- queue.
-- Not in a transaction that is to be prepared (notify_insert.sql): workers then read the rules at
-- their next regular look.
-- Plan: one Result; no table read.
SELECT pg_notify(%(schema)s::text, 'queues'), pg_notify(%(schema)s::text, 'insert ' || %(queue)s::text)
WHERE coalesce(current_setting('jobq.notify', true), '') <> 'off'
