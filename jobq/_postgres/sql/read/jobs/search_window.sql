-- Returns the lowest id and the number of the next `size` jobs below `before`: the range that a
-- search looks at next. {sides} are the tables that can have a match; for history, the partitions
-- that can. So every entry read counts.
-- Plan: job_pkey and each partition's job_history_id_idx backwards, merged, `size` entries in all.
SELECT count(*) AS number, min(entry.id) AS floor FROM (
    SELECT side.id FROM ({sides}) AS side
    ORDER BY side.id DESC
    LIMIT %(size)s
) AS entry
