-- Returns the latest ticks of a schedule, with their jobs. For a skipped tick, the job is the one
-- that held the schedule's key.
-- Plan: the key of schedule_tick, backwards.
SELECT tick, job_id, inserted_at, skipped FROM {schema}.schedule_tick WHERE schedule = %(name)s ORDER BY tick DESC LIMIT %(limit)s
