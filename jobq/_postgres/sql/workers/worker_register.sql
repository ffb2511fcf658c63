-- Inserts a worker's row. Its id is new at every start, so that nothing of an earlier run can be
-- mistaken for its own.
INSERT INTO {schema}.worker (
    id, lock_key, lock_server_start, pid, slots, host, version, app, queues, tasks, signatures, lease, suspicion)
VALUES (
    %(id)s, %(lock_key)s, CASE WHEN %(locked)s THEN pg_postmaster_start_time() END, %(pid)s, %(slots)s, %(host)s, %(version)s,
    %(app)s, %(queues)s, %(tasks)s, %(signatures)s, %(lease)s, %(suspicion)s)
