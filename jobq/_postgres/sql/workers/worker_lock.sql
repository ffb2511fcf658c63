-- Takes a worker's advisory lock for the session, unless a lost connection of its own still holds
-- it.
SELECT pg_try_advisory_lock(%(lock_key)s)
