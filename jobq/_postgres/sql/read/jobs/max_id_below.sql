-- Returns the highest id below `before`, live or finished: where a search continues after a gap. No
-- row: nothing is left.
-- Plan: one entry of job_pkey and of each partition's job_history_id_idx.
SELECT max(entry.id) AS id FROM (
    (SELECT id FROM {schema}.job WHERE id < %(before)s ORDER BY id DESC LIMIT 1)
    UNION ALL
    (SELECT id FROM {schema}.job_history WHERE id < %(before)s ORDER BY id DESC LIMIT 1)
) AS entry
