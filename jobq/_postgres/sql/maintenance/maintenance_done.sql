-- Writes the result of a maintenance task, and when it is due again.
UPDATE {schema}.maintenance_task
SET last_run_at = now(), last_worker = %(worker)s, last_error = %(error)s,
    last_report = CASE WHEN %(error)s::text IS NULL THEN %(report)s ELSE last_report END,
    due_at = CASE WHEN %(on_the_minute)s::boolean
                  THEN date_bin('1 minute', clock_timestamp() + %(again)s::interval, 'epoch') + interval '2 seconds'
                  ELSE clock_timestamp() + %(again)s::interval END
WHERE name = %(name)s
