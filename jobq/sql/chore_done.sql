-- What came of a chore, and when it is due again.
UPDATE {schema}.chore
SET last_run_at = now(), last_worker = %(worker)s, last_error = %(error)s,
    last_report = CASE WHEN %(error)s::text IS NULL THEN %(report)s ELSE last_report END,
    due_at = clock_timestamp() + %(again)s::interval
WHERE name = %(name)s
