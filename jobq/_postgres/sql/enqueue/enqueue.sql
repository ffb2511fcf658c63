-- Inserts jobs without keys. Returns the ids in the order given: rows of an INSERT … SELECT from functions in ROWS FROM are
-- numbered and returned as they come.
-- Each column comes as a JSON array with one element a job, or, when it is the same for all, as that value beside an empty
-- array. JSON arrays, since the arguments are JSON already: they need only be joined, not quoted, and are parsed once.
-- Plan: Insert over one function scan; no Sort, no other table read.
INSERT INTO {schema}.job (task, args, queue, priority, run_at, max_attempts, timeout, headers, group_key, expires_at)
SELECT coalesce(input.task, %(task)s::text), input.args, coalesce(input.queue, %(queue)s::text),
       coalesce(input.priority::smallint, %(priority)s::smallint),
       -- Never before this moment: a worker need not look for new jobs in a past that it has read (worker/cursor.py).
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
