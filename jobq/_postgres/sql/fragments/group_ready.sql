-- Makes the groups of ended jobs ready: there is room for the next job, or the first job is gone.
-- The end of a job makes no earlier job claimable, so the row's from_id and from_at are the
-- greatest.
-- $jobs: the CTE of these jobs. $when: its column that says for which jobs this applies: `limited`
-- for jobs that ran, `waiting` for jobs that waited for their group.
INSERT INTO {schema}.group_ready (queue, group_key, due_at, from_id, from_at)
SELECT queue, group_key, clock_timestamp(), 9223372036854775807, 'infinity'::timestamptz
FROM $jobs WHERE $when AND group_key IS NOT NULL
