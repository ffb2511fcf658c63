-- Returns those of the names that have no row or a withdrawn one: the schedule was removed, or
-- withdrawn a moment before a worker declared it.
-- Plan: the key of schedule, once a name.
SELECT name FROM unnest(%(names)s::text[]) AS name
WHERE NOT EXISTS (
    SELECT FROM {schema}.schedule WHERE schedule.name = name.name AND schedule.withdrawn_at IS NULL)
ORDER BY name
