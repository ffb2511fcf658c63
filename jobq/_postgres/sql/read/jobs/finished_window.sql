-- Returns the number and the last of the next `size` finished jobs below (`before_at`,
-- `before_id`), by finish time (the aggregate reads them in the order of the subquery; a sort of
-- its own would cost more than the rest).
-- Plan: each partition's job_history_finished_idx backwards, merged, `size` entries in all;
-- partitions of later days are left out. Succeeded jobs have no such index and are sorted: the
-- caller asks for them only while they are few (succeeded_pages.sql).
SELECT count(*) AS number, min(entry.finished_at) AS floor_at,
       (array_agg(entry.id))[count(*)] AS floor_id
FROM (
    SELECT finished_at, id FROM {schema}.job_history
    WHERE {partitions} AND finished_at <= %(before_at)s::timestamptz
      AND (finished_at, id) < (%(before_at)s::timestamptz, %(before_id)s::bigint)
    ORDER BY finished_at DESC, id DESC
    LIMIT %(size)s
) AS entry
