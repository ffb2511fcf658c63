-- Returns the lowest id above `after`, live or finished: where a filter continues after a gap.
-- Plan: one entry of job_pkey and of each partition's job_history_id_idx.
SELECT min(entry.id) AS id FROM (
    (SELECT id FROM {schema}.job WHERE id > %(after)s ORDER BY id LIMIT 1)
    UNION ALL
    (SELECT id FROM {schema}.job_history WHERE id > %(after)s ORDER BY id LIMIT 1)
) AS entry
