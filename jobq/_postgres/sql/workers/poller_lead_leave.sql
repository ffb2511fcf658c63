-- Gives up the lead poller's lock, and notifies every worker that it is free. One statement does
-- both, so a worker that is notified finds the lock free.
SELECT pg_advisory_unlock(1785684593, '{schema}.notify_mode'::regclass::oid::bigint::bit(32)::integer), pg_notify(%(channel)s, %(told)s)
