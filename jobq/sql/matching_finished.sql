-- The next finished jobs of one state that fit a filter, by id.
-- Plan: job_history_id_idx of that state's partitions, from `after` to `last`, a bounded range.
SELECT id FROM {schema}.job_history
WHERE state = %(state)s AND id > %(after)s AND id <= %(last)s
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)
  AND (%(task)s::text IS NULL OR task = %(task)s)
ORDER BY id
LIMIT %(limit)s
