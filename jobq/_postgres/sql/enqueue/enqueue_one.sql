-- Inserts one job without a key and returns its id.
-- Plan: Insert over one Result; no table read.
INSERT INTO {schema}.job (
    --include insert_job
)
VALUES (
    %(task)s::text, %(args)s::jsonb, %(queue)s::text, %(priority)s::smallint,
    -- Never before this moment: workers need not look for new jobs in a past that they have read
    -- (_worker/lanes/cursor.py).
    greatest(
        coalesce(%(run_at)s::timestamptz, clock_timestamp() + %(delay)s::double precision * interval '1 second'),
        clock_timestamp()
    ),
    %(max_attempts)s::integer, %(timeout)s::double precision, %(headers)s::jsonb, %(group_key)s::text,
    clock_timestamp() + %(expires_in)s::double precision * interval '1 second'
)
RETURNING id
