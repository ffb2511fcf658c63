-- Returns the queues whose rule for groups differs from the application's declaration, except those
-- that an operator has configured.
-- Plan: queue_pkey for each.
SELECT wanted.queue
FROM unnest(%(queues)s::text[], %(modes)s::text[], %(limits)s::integer[], %(retries)s::text[])
    AS wanted (queue, group_mode, group_limit, group_retry)
LEFT JOIN {schema}.queue AS entry ON entry.name = wanted.queue
WHERE entry.changed_at IS NULL
  AND (entry.group_mode, entry.group_limit, entry.group_retry)
      IS DISTINCT FROM (wanted.group_mode, wanted.group_limit, wanted.group_retry)
ORDER BY wanted.queue
