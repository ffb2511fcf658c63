-- Returns all that a worker reads after a heartbeat, in one statement, as it is most of what an idle worker asks for: which of its
-- jobs are to be cancelled, which queues are paused, when a queue's rules last changed, the mode of waking, whether there is a
-- sentinel, and the heartbeats of the other workers (worker_peers.sql). Where a lock is in the way of one of these, they are read one by one:
-- hear_cancels.sql, hear_queues.sql, hear_wake.sql, worker_peers.sql.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
WITH peers AS (
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
    WHERE worker.id <> %(id)s
)
SELECT ARRAY(SELECT id FROM {schema}.job
             WHERE worker_id = %(id)s AND state = 'running' AND cancel_requested_at IS NOT NULL ORDER BY id),
       ARRAY(SELECT name FROM {schema}.queue WHERE paused_at IS NOT NULL),
       (SELECT max(changed_at)::text FROM {schema}.queue),
       (SELECT last_value FROM {schema}.wake),
       EXISTS (SELECT FROM pg_locks AS lock
               WHERE lock.locktype = 'advisory' AND lock.objsubid = 2 AND lock.granted
                 AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND lock.classid = 1785684593::oid AND lock.objid = '{schema}.wake'::regclass),
       ARRAY(SELECT id FROM peers ORDER BY id),
       ARRAY(SELECT beats FROM peers ORDER BY id),
       ARRAY(SELECT unsuspected FROM peers ORDER BY id),
       ARRAY(SELECT age FROM peers ORDER BY id),
       ARRAY(SELECT clock FROM peers ORDER BY id)
