-- Those of the names that are of schedules made at run time.
SELECT name FROM {schema}.schedule WHERE name = ANY (%(names)s::text[]) AND source = 'run time' ORDER BY name
