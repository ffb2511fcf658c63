-- The latest ticks of a schedule, with their jobs.
-- Plan: the key of schedule_tick, backwards.
SELECT tick, job_id, inserted_at FROM {schema}.schedule_tick WHERE schedule = %(name)s ORDER BY tick DESC LIMIT %(limit)s
