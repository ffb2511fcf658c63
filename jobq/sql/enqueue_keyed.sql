-- Inserts jobs of which some have idempotency keys, by the function of the same name: see its comment in migrations/sql.
-- Returns one row a job; with a conflict under on_conflict 'raise', only the conflicts, and nothing is inserted.
-- Plan: one function scan.
SELECT job_id, created, replaced, ord
FROM {schema}.enqueue_keyed(
    %(task)s::text[], %(args)s::text[], %(queue)s::text[], %(priority)s::integer[], %(run_at)s::timestamptz[],
    %(delay)s::double precision[], %(max_attempts)s::integer[], %(timeout)s::double precision[], %(headers)s::text[],
    %(key)s::text[], %(holds)s::text[], %(period)s::double precision[], %(on_conflict)s::text[], %(group_key)s::text[],
    %(expires_in)s::double precision[]
)
