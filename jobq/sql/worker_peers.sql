-- Every worker's count of beats, and whether the advisory lock that it holds while it lives is held.
SELECT worker.id, worker.beats, EXISTS (
    SELECT FROM pg_locks AS lock
    WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND lock.classid = ((worker.lock_key >> 32) & 4294967295)::oid
      AND lock.objid = (worker.lock_key & 4294967295)::oid
) AS lock_held
FROM {schema}.worker
