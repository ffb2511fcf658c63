-- The lowest id of the next `size` jobs below `before`, and how many they are: what a search looks at next. {sides} are the
-- tables that can have a match; of history, the partitions that can: so every entry read counts.
-- Plan: job_pkey and each partition's job_history_id_idx backwards, merged, `size` entries in all.
SELECT count(*) AS number, min(entry.id) AS floor FROM (
    SELECT side.id FROM ({sides}) AS side
    ORDER BY side.id DESC
    LIMIT %(size)s
) AS entry
