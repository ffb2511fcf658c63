-- Set the mode of waking, over the session that holds the sentinel's lock, and tell every worker.
-- setval takes effect at once and for every producer, not at commit; its transaction id is older than that moment.
SELECT setval('{schema}.wake', %(mode)s), pg_notify(%(channel)s, %(told)s)
