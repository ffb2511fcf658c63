-- As search_page, but returns only what is needed to decide whether a job matches, and its stored
-- size: no payload is read.
-- Plan: as search_page.
SELECT * FROM (
    (SELECT id, task, NULL::text AS error, pg_column_size(args) + pg_column_size(headers) AS size
     FROM {schema}.job
     WHERE id >= %(floor)s::bigint AND id < %(before)s::bigint {among} AND {live}
     ORDER BY id DESC
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, task, left(error, 500),
            pg_column_size(args) + pg_column_size(headers) + coalesce(pg_column_size(result), 0)
     FROM {schema}.job_history
     WHERE id >= %(floor)s::bigint AND id < %(before)s::bigint {among} AND {finished}
     ORDER BY id DESC
     LIMIT %(limit)s)
) AS entry
ORDER BY entry.id DESC
LIMIT %(limit)s
