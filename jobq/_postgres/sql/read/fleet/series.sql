-- Returns the rollups of one length of span since a time, for one queue ('' is all) or one task,
-- and which spans were counted at all.
-- Plan: two ranges of the primary keys.
SELECT extract(epoch FROM total.at)::bigint AS at,
       coalesce(own.succeeded, 0) AS succeeded, coalesce(own.failed, 0) AS failed, coalesce(own.cancelled, 0) AS cancelled,
       coalesce(own.expired, 0) AS expired, coalesce(own.ready, CASE WHEN %(task)s::text IS NULL AND total.ready IS NOT NULL THEN 0 END) AS ready,
       own.oldest_ready_seconds AS oldest_ready, coalesce(own.waits, '{{}}') AS waits, coalesce(own.runs, '{{}}') AS runs
FROM {schema}.rollup_queue AS total
LEFT JOIN (
    SELECT at, succeeded, failed, cancelled, expired, ready, oldest_ready_seconds, waits, runs
    FROM {schema}.rollup_queue
    WHERE span = %(span)s AND at >= %(since)s::timestamptz AND queue = %(queue)s AND %(task)s::text IS NULL
    UNION ALL
    SELECT at, succeeded, failed, cancelled, expired, NULL, NULL, waits, runs
    FROM {schema}.rollup_task
    WHERE span = %(span)s AND at >= %(since)s::timestamptz AND task = %(task)s::text
) AS own ON own.at = total.at
WHERE total.span = %(span)s AND total.at >= %(since)s::timestamptz AND total.queue = ''
ORDER BY total.at
