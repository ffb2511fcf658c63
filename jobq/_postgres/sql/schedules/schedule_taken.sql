-- Returns those of the names that belong to schedules made at run time.
SELECT name FROM {schema}.schedule WHERE name = ANY (%(names)s::text[]) AND source = 'runtime' ORDER BY name
