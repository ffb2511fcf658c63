-- Inserts jobs of which some have idempotency keys, by the function of the same name: see its comment in migrations/sql.
-- Returns one row a job; with a conflict under on_conflict 'raise', only the conflicts, and nothing is inserted.
-- Plan: one function scan.
SELECT ord, job_id, created, replaced
FROM {schema}.enqueue_keyed(
    %(tasks)s::text[], %(args)s::text[], %(queues)s::text[], %(priorities)s::integer[], %(run_ats)s::timestamptz[],
    %(delays)s::double precision[], %(max_attempts)s::integer[], %(timeouts)s::double precision[], %(headers)s::text[],
    %(keys)s::text[], %(holds)s::text[], %(periods)s::double precision[], %(on_conflicts)s::text[]
)
