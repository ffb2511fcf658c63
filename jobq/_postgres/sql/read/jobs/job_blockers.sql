-- What stands between a job and its start in a queue with a limit, a rate or a rule for its groups, as claim_managed looks at it.
-- Counts go up to `bound`. `head_…`: the first of its group by order of enqueue; `before`: those of its group before it in
-- that order, `before_due` such of them as are due; `turn_at`: its group's first among the `bound` turns next in line, and
-- `turns_before` how many groups are before.
-- Plan: job_managed_idx, gate_pkey, job_waiting_idx, the beginning of the queue's range of job_turn_idx.
SELECT
    (SELECT count(*) FROM (SELECT FROM {schema}.job WHERE state = 'running' AND managed AND queue = %(queue)s::text
                           ORDER BY queue, group_key LIMIT %(bound)s::integer) AS entry)::integer AS held,
    (SELECT extract(epoch FROM paid_until - statement_timestamp())::double precision FROM {schema}.gate
     WHERE queue = %(queue)s::text AND group_key = '') AS queue_paid,
    (SELECT extract(epoch FROM paid_until - statement_timestamp())::double precision FROM {schema}.gate
     WHERE queue = %(queue)s::text AND group_key = %(group)s::text) AS group_paid,
    (SELECT max_running FROM {schema}.gate WHERE queue = %(queue)s::text AND group_key = %(group)s::text) AS group_limit,
    (SELECT count(*) FROM (SELECT FROM {schema}.job
                           WHERE state = 'running' AND managed AND queue = %(queue)s::text AND group_key = %(group)s::text
                           ORDER BY queue, group_key LIMIT %(bound)s::integer) AS entry)::integer AS group_held,
    (SELECT id FROM {schema}.job WHERE state = 'running' AND managed AND queue = %(queue)s::text AND group_key = %(group)s::text
     ORDER BY queue, group_key LIMIT 1) AS running_id,
    head.id AS head_id, extract(epoch FROM head.run_at - statement_timestamp())::double precision AS head_in,
    head.claims AS head_claims,
    before.number::integer AS before, before.due::integer AS before_due,
    turn.due_in::double precision AS turn_in, turn.before::integer AS turns_before, line.number::integer AS turns_seen
FROM (SELECT count(*) AS number FROM (SELECT FROM {schema}.job_turn WHERE queue = %(queue)s::text
                                      ORDER BY queue, due_at LIMIT %(bound)s::integer) AS entry) AS line
LEFT JOIN LATERAL (
    SELECT id, run_at, claims FROM {schema}.job
    WHERE state = 'waiting' AND queue = %(queue)s::text AND group_key = %(group)s::text
    ORDER BY queue, group_key, id LIMIT 1
) AS head ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS number, count(*) FILTER (WHERE entry.run_at <= statement_timestamp()) AS due
    FROM (SELECT run_at FROM {schema}.job
          WHERE state = 'waiting' AND queue = %(queue)s::text AND group_key = %(group)s::text AND id < %(id)s::bigint
          ORDER BY queue, group_key, id LIMIT %(bound)s::integer) AS entry
) AS before ON true
LEFT JOIN LATERAL (
    SELECT extract(epoch FROM min(entry.due_at) FILTER (WHERE entry.group_key = %(group)s::text) - statement_timestamp()) AS due_in,
           count(DISTINCT entry.group_key) FILTER (WHERE entry.due_at <= statement_timestamp() AND entry.n < entry.mine) AS before
    FROM (SELECT next.group_key, next.due_at, next.n,
                 coalesce(min(next.n) FILTER (WHERE next.group_key = %(group)s::text) OVER (), 0) AS mine
          FROM (SELECT group_key, due_at, row_number() OVER (ORDER BY due_at) AS n
                FROM (SELECT group_key, due_at FROM {schema}.job_turn WHERE queue = %(queue)s::text
                      ORDER BY queue, due_at LIMIT %(bound)s::integer) AS first) AS next) AS entry
) AS turn ON true
