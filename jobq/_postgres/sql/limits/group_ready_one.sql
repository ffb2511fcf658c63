-- Makes one group ready if it has waiting jobs.
-- Plan: job_waiting_idx, one entry.
INSERT INTO {schema}.group_ready (queue, group_key)
SELECT first.queue, first.group_key
FROM (SELECT queue, group_key FROM {schema}.job
      WHERE state = 'waiting' AND queue = %(queue)s::text AND group_key = %(group)s::text
      ORDER BY id LIMIT 1) AS first
RETURNING 1
