-- Returns the daily partitions that do not exist yet, from yesterday to `days_ahead` days from now,
-- today's first.
-- Plan: two functions; no table.
SELECT parent, day::text
FROM unnest(%(parents)s::text[]) AS parent,
     (SELECT step, (now() AT TIME ZONE 'UTC')::date + step AS day FROM generate_series(-1, %(days_ahead)s::integer) AS step) AS days
WHERE to_regclass(format('%%I.%%I', %(schema_name)s::text, parent || '_' || to_char(day, 'YYYYMMDD'))) IS NULL
ORDER BY step < 0, step, parent
