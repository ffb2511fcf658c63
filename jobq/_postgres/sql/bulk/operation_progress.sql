-- Records the progress of an operation after a batch. With a rate, `progressed_at` is the time
-- until which the finished jobs were allowed, but no more than a second ago.
-- Plan: operation_pkey.
UPDATE {schema}.operation
SET after_id = %(after)s, seen = seen + %(done)s + %(refused)s, done = done + %(done)s, refused = refused + %(refused)s,
    refusals = %(refusals)s::jsonb,
    progressed_at = CASE
        WHEN rate IS NULL THEN clock_timestamp()
        ELSE greatest(progressed_at + (%(done)s + %(refused)s) / rate * interval '1 second', clock_timestamp() - interval '1 second')
    END
WHERE id = %(id)s
RETURNING operation.*, clock_timestamp() AS read_at
