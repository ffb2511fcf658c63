-- Returns everything that a worker reads after a heartbeat, in one statement, because this is most
-- of an idle worker's load: which of its jobs to cancel, which queues are paused, when a queue's
-- rules last changed, the notify mode, whether there is a lead poller, and the heartbeats of the
-- other workers. If a lock blocks one of these, they are read one by one:
-- heartbeat_cancels.sql, heartbeat_queues.sql, heartbeat_notify_mode.sql, worker_peers.sql.
-- Plan: Index Scan using job_running_idx; no Seq Scan on job.
WITH peers AS (
    --include peer_list
    WHERE worker.id <> %(id)s
)
SELECT ARRAY(SELECT id FROM {schema}.job
             WHERE worker_id = %(id)s AND state = 'running' AND cancel_requested_at IS NOT NULL ORDER BY id),
       ARRAY(SELECT name FROM {schema}.queue WHERE paused_at IS NOT NULL),
       (SELECT max(changed_at)::text FROM {schema}.queue),
       (SELECT last_value FROM {schema}.notify_mode),
       EXISTS (
           SELECT FROM pg_locks AS lock
           WHERE
               --include poller_lock
       ),
       ARRAY(SELECT id FROM peers ORDER BY id),
       ARRAY(SELECT beats FROM peers ORDER BY id),
       ARRAY(SELECT unsuspected FROM peers ORDER BY id),
       ARRAY(SELECT age FROM peers ORDER BY id),
       ARRAY(SELECT clock FROM peers ORDER BY id),
       ARRAY(SELECT lease FROM peers ORDER BY id),
       ARRAY(SELECT suspicion FROM peers ORDER BY id)
