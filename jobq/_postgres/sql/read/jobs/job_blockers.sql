-- Returns what keeps a job from starting in a queue with a limit, a rate or a rule for groups, as
-- claim_limited sees it.
-- Counts go up to `bound`. `head_…`: the first job of its group in the order of enqueue. `before`:
-- the jobs of its group before it in that order; `before_due`: those of them that are due.
-- `turn_in`: seconds until its group is ready first, among the next `bound` ready groups; `turns_before`:
-- the number of groups before it. `…_wait`: seconds until the rate allows one more start, NULL
-- without a rate.
-- Plan: job_limited_idx, rate_state_pkey, queue_pkey, job_waiting_idx, the beginning of the queue's range of group_ready_idx.
SELECT
    (SELECT count(*) FROM (SELECT FROM {schema}.job WHERE state = 'running' AND limited AND queue = %(queue)s::text
                           ORDER BY queue, group_key LIMIT %(bound)s::integer) AS entry)::integer AS held,
    (SELECT extract(epoch FROM {schema}.admits_from(rule.rate_jobs, rule.rate_seconds, rule.rate_burst, rate_state.paid_until)
                               - statement_timestamp())::double precision
     FROM {schema}.rate_state JOIN {schema}.queue AS rule ON rule.name = rate_state.queue
     WHERE rate_state.queue = %(queue)s::text AND rate_state.group_key = '') AS queue_wait,
    (SELECT extract(epoch FROM {schema}.admits_from(
                                   rule.group_rate_jobs, rule.group_rate_seconds, rule.group_rate_burst, rate_state.paid_until)
                               - statement_timestamp())::double precision
     FROM {schema}.rate_state JOIN {schema}.queue AS rule ON rule.name = rate_state.queue
     WHERE rate_state.queue = %(queue)s::text AND rate_state.group_key = %(group)s::text) AS group_wait,
    (SELECT max_running FROM {schema}.rate_state WHERE queue = %(queue)s::text AND group_key = %(group)s::text) AS group_limit,
    (SELECT count(*) FROM (SELECT FROM {schema}.job
                           WHERE state = 'running' AND limited AND queue = %(queue)s::text AND group_key = %(group)s::text
                           ORDER BY queue, group_key LIMIT %(bound)s::integer) AS entry)::integer AS group_held,
    (SELECT id FROM {schema}.job WHERE state = 'running' AND limited AND queue = %(queue)s::text AND group_key = %(group)s::text
     ORDER BY queue, group_key LIMIT 1) AS running_id,
    head.id AS head_id, extract(epoch FROM head.run_at - statement_timestamp())::double precision AS head_in,
    head.claims AS head_claims,
    before.number::integer AS before, before.due::integer AS before_due,
    turn.due_in::double precision AS turn_in, turn.before::integer AS turns_before, line.number::integer AS turns_seen
FROM (SELECT count(*) AS number FROM (SELECT FROM {schema}.group_ready WHERE queue = %(queue)s::text
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
                FROM (SELECT group_key, due_at FROM {schema}.group_ready WHERE queue = %(queue)s::text
                      ORDER BY queue, due_at LIMIT %(bound)s::integer) AS first) AS next) AS entry
) AS turn ON true
