-- Tells the workers, at the commit, that queues have changed, and that there may be work in this one.
-- Plan: one Result; no table read.
SELECT pg_notify(%(schema)s::text, 'queues'), pg_notify(%(schema)s::text, 'insert ' || %(queue)s::text)
