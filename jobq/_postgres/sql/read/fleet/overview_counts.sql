-- Counts finished jobs by state, each up to `bound` (successes only on request), jobs that wait for
-- their group, and parked jobs: those that wait for other code, or among the newest `bound` live
-- ones.
-- Plan: the newest entries of each state's job_history_id_idx; job_waiting_idx; job_parked_idx; job_pkey from its end. No whole table is read.
SELECT
    CASE WHEN %(succeeded)s THEN (
        SELECT count(*) FROM (SELECT id FROM {schema}.job_history WHERE state = 'succeeded'
                              ORDER BY id DESC LIMIT %(bound)s) AS entry) END AS succeeded,
    (SELECT count(*) FROM (SELECT id FROM {schema}.job_history WHERE state = 'failed'
                           ORDER BY id DESC LIMIT %(bound)s) AS entry) AS failed,
    (SELECT count(*) FROM (SELECT id FROM {schema}.job_history WHERE state = 'cancelled'
                           ORDER BY id DESC LIMIT %(bound)s) AS entry) AS cancelled,
    (SELECT count(*) FROM (SELECT id FROM {schema}.job_history WHERE state = 'expired'
                           ORDER BY id DESC LIMIT %(bound)s) AS entry) AS expired,
    (SELECT count(*) FROM (SELECT queue FROM {schema}.job WHERE state = 'waiting'
                           ORDER BY queue, group_key, id LIMIT %(bound)s) AS entry) AS waiting,
    greatest(aside.parked,
             (SELECT count(*) FROM (SELECT FROM {schema}.job WHERE parked_at IS NOT NULL AND state = 'parked'
                                    LIMIT %(bound)s) AS entry)) AS parked,
    aside.seen
FROM (
    SELECT count(*) FILTER (WHERE entry.state = 'parked') AS parked, count(*) AS seen
    FROM (SELECT state FROM {schema}.job ORDER BY id DESC LIMIT %(bound)s) AS entry
) AS aside
