-- Returns live and finished jobs as one list, with `floor` <= id < `before` and the conditions of a
-- filter on either, newest first. Arguments are read only for the rows of the page, and only if
-- they are small.
-- Plan: job_pkey and each partition's job_history_id_idx backwards, merged, until the page is full;
-- with {among} by these ids. The filter is applied during the read: if it matches little, the
-- caller bounds [floor, before).
SELECT * FROM (
    (SELECT id, task, queue,
            CASE WHEN state = 'ready' AND run_at > statement_timestamp() THEN 'scheduled' ELSE state END AS state,
            priority, attempt, max_attempts, run_at, created_at, started_at,
            NULL::timestamptz AS finished_at, cancel_requested_at, worker_id, key, NULL::text AS error,
            CASE WHEN pg_column_size(args) <= 2000 AND octet_length(args::text) <= 4000 THEN args::text END AS args,
            progress::text AS progress, group_key
     FROM {schema}.job
     WHERE id >= %(floor)s::bigint AND id < %(before)s::bigint {among} AND {live}
     ORDER BY id DESC
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, task, queue, state, priority, attempt, max_attempts, run_at, created_at, started_at, finished_at,
            NULL::timestamptz, worker_id, key, left(error, 500),
            CASE WHEN pg_column_size(args) <= 2000 AND octet_length(args::text) <= 4000 THEN args::text END, NULL::text, group_key
     FROM {schema}.job_history
     WHERE id >= %(floor)s::bigint AND id < %(before)s::bigint {among} AND {finished}
     ORDER BY id DESC
     LIMIT %(limit)s)
) AS entry
ORDER BY entry.id DESC
LIMIT %(limit)s
