-- Inserts jobs without keys; the arrays run in parallel, one element a job. Returns the ids in the order given: rows of an
-- INSERT … SELECT from unnest are numbered and returned as they come.
-- Plan: Insert over one function scan; no Sort, no other table read.
INSERT INTO {schema}.job (task, args, queue, priority, run_at, max_attempts, timeout, headers)
SELECT input.task, input.args::jsonb, input.queue, input.priority,
       -- Never before this moment: a worker need not look for new jobs in a past that it has read (worker/cursor.py).
       greatest(coalesce(input.run_at, clock_timestamp() + input.delay * interval '1 second'), clock_timestamp()),
       input.max_attempts, input.timeout, input.headers::jsonb
FROM unnest(
    %(tasks)s::text[], %(args)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(run_ats)s::timestamptz[],
    %(delays)s::double precision[], %(max_attempts)s::integer[], %(timeouts)s::double precision[], %(headers)s::text[]
) AS input (task, args, queue, priority, run_at, delay, max_attempts, timeout, headers)
RETURNING id
