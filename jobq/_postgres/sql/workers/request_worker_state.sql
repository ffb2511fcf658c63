-- Records the state that is requested of a worker: quiet, stop, or (NULL) continue. No row if there
-- is no such worker, if the same state is already requested, or if a stop was requested, because
-- the worker may be about to exit.
-- Plan: worker_pkey.
WITH known AS MATERIALIZED (
    SELECT id, requested_state FROM {schema}.worker
    WHERE id = %(id)s AND requested_state IS DISTINCT FROM %(what)s::text AND requested_state IS DISTINCT FROM 'stop'
    FOR UPDATE
)
UPDATE {schema}.worker SET requested_state = %(what)s::text
FROM known
WHERE worker.id = known.id
RETURNING worker.host, worker.pid, known.requested_state AS before
