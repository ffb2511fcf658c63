-- Every worker's count of beats, and whether there is nothing against it: its advisory lock is held, or it took none since
-- this server started (a pooler stands before it, or this server was a standby then), so that a free lock says nothing.
-- Also the age of its last heartbeat in seconds, and the server's clock, by which lease.py tells whether the age can be trusted.
SELECT worker.id, worker.beats, worker.lock_server_start IS DISTINCT FROM pg_postmaster_start_time() OR EXISTS (
    SELECT FROM pg_locks AS lock
    WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND lock.classid = ((worker.lock_key >> 32) & 4294967295)::oid
      AND lock.objid = (worker.lock_key & 4294967295)::oid
) AS unsuspected,
    greatest(extract(epoch FROM clock_timestamp() - worker.heartbeat_at), 0)::double precision AS age,
    extract(epoch FROM clock_timestamp())::double precision AS clock
FROM {schema}.worker
