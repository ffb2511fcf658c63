-- Returns finished jobs that match a filter, from (`floor_at`, `floor_id`) up to and without
-- (`before_at`, `before_id`), latest first.
-- Plan: each partition's job_history_finished_idx backwards, merged, until the page is full. The
-- filter is applied during the read: if it matches little, the caller bounds the range.
SELECT id, task, queue, state, priority, attempt, max_attempts, run_at, created_at, started_at, finished_at,
       NULL::timestamptz AS cancel_requested_at, worker_id, key, left(error, 500) AS error,
       CASE WHEN pg_column_size(args) <= 2000 AND octet_length(args::text) <= 4000 THEN args::text END AS args,
       NULL::text AS progress, group_key
FROM {schema}.job_history
WHERE finished_at >= %(floor_at)s::timestamptz AND finished_at <= %(before_at)s::timestamptz
  AND (finished_at, id) >= (%(floor_at)s::timestamptz, %(floor_id)s::bigint)
  AND (finished_at, id) < (%(before_at)s::timestamptz, %(before_id)s::bigint) AND {finished}
ORDER BY finished_at DESC, id DESC
LIMIT %(limit)s
