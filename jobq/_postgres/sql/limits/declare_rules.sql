-- Sets how the groups of queues run, as the application declares it, if no operator has configured
-- the queue (`changed_at`) and the current rule differs. Notifies the workers, and returns the
-- queues.
-- Plan: queue_pkey.
WITH declared AS (
    INSERT INTO {schema}.queue AS entry (name, group_mode, group_limit, group_retry)
    SELECT * FROM unnest(%(queues)s::text[], %(modes)s::text[], %(limits)s::integer[], %(retries)s::text[])
    ON CONFLICT (name) DO UPDATE
    SET group_mode = excluded.group_mode, group_limit = excluded.group_limit, group_retry = excluded.group_retry
    WHERE entry.changed_at IS NULL
      AND (entry.group_mode, entry.group_limit, entry.group_retry)
          IS DISTINCT FROM (excluded.group_mode, excluded.group_limit, excluded.group_retry)
    RETURNING name
), told AS (
    SELECT pg_notify(%(channel)s, 'queues') WHERE EXISTS (SELECT FROM declared)
)
SELECT name FROM declared WHERE (SELECT count(*) FROM told) >= 0
