-- Writes the depths to the minute that has just ended. A queue without a row there gets one. The
-- queues `aside` stay unchanged; so do all except those in `among`, unless it is NULL.
INSERT INTO {schema}.rollup_queue AS old (span, at, queue, ready, oldest_ready_seconds)
SELECT 60, %(at)s::timestamptz, *
FROM unnest(%(queues)s::text[], %(ready)s::integer[], %(oldest)s::double precision[])
UNION ALL
SELECT 60, at, queue, 0, NULL FROM {schema}.rollup_queue
WHERE span = 60 AND at = %(at)s::timestamptz AND NOT queue = ANY (%(queues)s::text[])
  AND queue <> ALL (%(aside)s::text[]) AND (%(among)s::text[] IS NULL OR queue = ANY (%(among)s::text[]))
ON CONFLICT (span, at, queue) DO UPDATE SET ready = excluded.ready, oldest_ready_seconds = excluded.oldest_ready_seconds
