-- Notes what a worker is asked for: quiet, stop, or (NULL) to go on. No row where there is no such worker, where it was asked
-- that already, and once it was asked to stop, for it may be on its way out.
-- Plan: worker_pkey.
WITH known AS MATERIALIZED (
    SELECT id, asked FROM {schema}.worker
    WHERE id = %(id)s AND asked IS DISTINCT FROM %(what)s::text AND asked IS DISTINCT FROM 'stop'
    FOR UPDATE
)
UPDATE {schema}.worker SET asked = %(what)s::text
FROM known
WHERE worker.id = known.id
RETURNING worker.host, worker.pid, known.asked AS before
