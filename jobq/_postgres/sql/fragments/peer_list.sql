-- Every worker's heartbeat count, and whether its advisory lock raises no suspicion: the lock is
-- held, or the worker has taken none since this server started (it connects through a pooler, or
-- this server was a standby then), so that a free lock says nothing.
-- Then the age of its last heartbeat in seconds, the server's clock, by which lease.py decides
-- whether the age can be trusted, its lease, and its suspicion. A worker relies on its own times,
-- whatever the times of the asking worker are.
SELECT worker.id, worker.beats, worker.lock_server_start IS DISTINCT FROM pg_postmaster_start_time() OR EXISTS (
    SELECT FROM pg_locks AS lock
    WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND lock.classid = ((worker.lock_key >> 32) & 4294967295)::oid
      AND lock.objid = (worker.lock_key & 4294967295)::oid
) AS unsuspected,
    greatest(extract(epoch FROM clock_timestamp() - worker.heartbeat_at), 0)::double precision AS age,
    extract(epoch FROM clock_timestamp())::double precision AS clock, worker.lease, worker.suspicion
FROM {schema}.worker
