-- Sets the notify mode, in the session that holds the lead poller's lock, and notifies every
-- worker.
-- setval takes effect at once and for every producer, not at commit. Its transaction id is older
-- than that moment.
SELECT setval('{schema}.notify_mode', %(mode)s), pg_notify(%(channel)s, %(told)s)
