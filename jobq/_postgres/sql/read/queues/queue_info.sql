-- Returns one queue's depth, each count up to `bound`, and its settings. `due` and the oldest: see
-- queues.sql.
-- Plan: the lanes' ranges of job_claim_idx, job_running_idx, job_waiting_due_idx, job_parked_idx, the newest entries of the failed partitions' job_history_id_idx.
SELECT
    sum(depth.ready)::integer AS ready, sum(depth.scheduled)::integer AS scheduled,
    (SELECT count(*) FROM (SELECT queue FROM {schema}.job WHERE state = 'running' LIMIT %(bound)s) AS entry
     WHERE entry.queue = %(queue)s)::integer AS running,
    (SELECT count(*) FROM (SELECT queue FROM {schema}.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT %(bound)s) AS entry
     WHERE entry.queue = %(queue)s)::integer AS failed,
    (sum(depth.ready) + min(waiting.due) + min(parked.due))::integer AS due,
    extract(epoch FROM now() - least(min(depth.oldest), min(waiting.oldest), min(parked.oldest)))::double precision AS oldest_ready_seconds,
    extract(epoch FROM now() - min(depth.oldest))::double precision AS oldest_unheld_seconds,
    (SELECT paused_at FROM {schema}.queue WHERE name = %(queue)s) AS paused_at,
    (SELECT paused_by FROM {schema}.queue WHERE name = %(queue)s) AS paused_by,
    (SELECT pause_reason FROM {schema}.queue WHERE name = %(queue)s) AS pause_reason,
    min(waiting.number)::integer AS waiting, min(parked.number)::integer AS parked,
    (SELECT max_running FROM {schema}.queue WHERE name = %(queue)s) AS max_running,
    (SELECT rate_jobs FROM {schema}.queue WHERE name = %(queue)s) AS rate_jobs,
    (SELECT rate_seconds FROM {schema}.queue WHERE name = %(queue)s) AS rate_seconds,
    (SELECT rate_burst FROM {schema}.queue WHERE name = %(queue)s) AS rate_burst,
    (SELECT group_mode FROM {schema}.queue WHERE name = %(queue)s) AS group_mode,
    (SELECT group_limit FROM {schema}.queue WHERE name = %(queue)s) AS group_limit,
    (SELECT group_retry FROM {schema}.queue WHERE name = %(queue)s) AS group_retry,
    (SELECT group_rate_jobs FROM {schema}.queue WHERE name = %(queue)s) AS group_rate_jobs,
    (SELECT group_rate_seconds FROM {schema}.queue WHERE name = %(queue)s) AS group_rate_seconds,
    (SELECT group_rate_burst FROM {schema}.queue WHERE name = %(queue)s) AS group_rate_burst,
    (SELECT changed_at FROM {schema}.queue WHERE name = %(queue)s) AS changed_at,
    EXISTS (SELECT FROM {schema}.queue WHERE name = %(queue)s) AS has_row,
    now() AS read_at
FROM generate_series(0, 9) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
                  AND job.run_at <= statement_timestamp()
                ORDER BY job.run_at LIMIT %(bound)s) AS entry) AS ready,
           (SELECT count(*) FROM (
                SELECT FROM {schema}.job
                WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
                  AND job.run_at > statement_timestamp()
                ORDER BY job.run_at LIMIT %(bound)s) AS entry) AS scheduled,
           (SELECT job.run_at FROM {schema}.job
            WHERE job.state = 'ready' AND job.queue = %(queue)s AND job.priority = lane.priority::smallint
              AND job.run_at <= statement_timestamp()
            ORDER BY job.run_at LIMIT 1) AS oldest
) AS depth
CROSS JOIN (
    SELECT count(*) AS number, count(*) FILTER (WHERE entry.run_at <= statement_timestamp()) AS due,
           least(min(entry.run_at) FILTER (WHERE entry.run_at <= statement_timestamp()),
                 (WITH RECURSIVE head AS (
                      (SELECT job.group_key, job.run_at FROM {schema}.job
                       WHERE job.state = 'waiting' AND job.queue = %(queue)s
                       ORDER BY job.queue, job.group_key, job.run_at LIMIT 1)
                      UNION ALL
                      SELECT following.group_key, following.run_at
                      FROM head
                      CROSS JOIN LATERAL (
                          SELECT job.group_key, job.run_at FROM {schema}.job
                          WHERE job.state = 'waiting' AND job.queue = %(queue)s AND job.group_key > head.group_key
                          ORDER BY job.queue, job.group_key, job.run_at LIMIT 1
                      ) AS following
                  )
                  SELECT min(top.run_at) FROM (SELECT head.run_at FROM head LIMIT 200) AS top
                  WHERE top.run_at <= statement_timestamp())) AS oldest
    FROM (SELECT run_at FROM {schema}.job WHERE state = 'waiting' AND queue = %(queue)s
          ORDER BY queue, group_key, run_at LIMIT %(bound)s) AS entry
) AS waiting
CROSS JOIN (
    SELECT count(*) FILTER (WHERE entry.state = 'parked') AS number, count(*) FILTER (WHERE entry.due) AS due,
           min(least(entry.run_at, entry.parked_at)) FILTER (WHERE entry.due) AS oldest
    FROM (SELECT queue, state, run_at, parked_at, (state = 'parked') = (run_at <= statement_timestamp()) AS due
          FROM {schema}.job
          WHERE
              --include parked_jobs
          LIMIT %(bound)s) AS entry
    WHERE entry.queue = %(queue)s
) AS parked
