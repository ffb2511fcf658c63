-- Inserts jobs, some with idempotency keys, by the function of the same name: see its
-- comment in migrations/functions.
-- Returns one row per job. After a conflict under on_conflict 'raise', it returns only the
-- conflicts, and inserts nothing.
-- In arrays of optional values, a value that no job has stands for a missing one. The word NULL in
-- the text of an array needs array_nulls on, and a caller's session may have it off.
-- Plan: one function scan.
SELECT job_id, created, replaced, ord, other_task
FROM {schema}.enqueue_keyed(
    %(task)s::text[], %(args)s::text[], %(queue)s::text[], %(priority)s::integer[],
    array_replace(%(run_at)s::timestamptz[], '-infinity', NULL), array_replace(%(delay)s::double precision[], 'NaN', NULL),
    %(max_attempts)s::integer[], array_replace(%(timeout)s::double precision[], 'NaN', NULL), %(headers)s::text[],
    array_replace(%(key)s::text[], '', NULL), %(holds)s::text[], %(period)s::double precision[], %(on_conflict)s::text[],
    array_replace(%(group_key)s::text[], '', NULL), array_replace(%(expires_in)s::double precision[], 'NaN', NULL),
    %(scope)s::text[]
)
