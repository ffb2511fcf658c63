-- Tells the workers, at the commit, that what is set for queues has changed.
-- Plan: one Result; no table read.
SELECT pg_notify(%(schema)s::text, 'queues')
