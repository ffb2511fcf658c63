-- Inserts jobs without keys. Returns the ids in the given order: rows of an INSERT … SELECT from
-- functions in ROWS FROM are numbered and returned in their order.
-- Each column is a JSON array with one element per job. If the value is the same for all jobs, it
-- is that value beside an empty array. The arrays are JSON because the arguments already are: they
-- are joined without quoting, and parsed once.
-- Plan: Insert over one function scan; no Sort, no other table read.
INSERT INTO {schema}.job (
    --include insert_job
)
SELECT coalesce(input.task, %(task)s::text), input.args, coalesce(input.queue, %(queue)s::text),
       coalesce(input.priority::smallint, %(priority)s::smallint),
       -- Never before this moment: workers need not look for new jobs in a past that they have read
       -- (_worker/lanes/cursor.py).
       greatest(
           coalesce(
               input.run_at::timestamptz, %(run_at)s::timestamptz,
               clock_timestamp()
               + coalesce(input.delay::double precision, %(delay)s::double precision) * interval '1 second'
           ),
           clock_timestamp()
       ),
       coalesce(input.max_attempts::integer, %(max_attempts)s::integer),
       coalesce(input.timeout::double precision, %(timeout)s::double precision),
       coalesce(input.headers::jsonb, %(headers)s::jsonb), coalesce(input.group_key, %(group_key)s::text),
       clock_timestamp()
       + coalesce(input.expires_in::double precision, %(expires_in)s::double precision) * interval '1 second'
FROM ROWS FROM (
    jsonb_array_elements(%(args)s::jsonb), jsonb_array_elements_text(%(each_task)s::jsonb),
    jsonb_array_elements_text(%(each_queue)s::jsonb), jsonb_array_elements_text(%(each_priority)s::jsonb),
    jsonb_array_elements_text(%(each_run_at)s::jsonb), jsonb_array_elements_text(%(each_delay)s::jsonb),
    jsonb_array_elements_text(%(each_max_attempts)s::jsonb), jsonb_array_elements_text(%(each_timeout)s::jsonb),
    jsonb_array_elements_text(%(each_headers)s::jsonb), jsonb_array_elements_text(%(each_group_key)s::jsonb),
    jsonb_array_elements_text(%(each_expires_in)s::jsonb)
) AS input (args, task, queue, priority, run_at, delay, max_attempts, timeout, headers, group_key, expires_in)
RETURNING id
