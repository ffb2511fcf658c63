-- Inserts one job that has an idempotency key, by the function enqueue_one: see its comment in migrations/functions.
-- Plan: one function scan.
SELECT job_id, created, replaced, 1, other_task
FROM {schema}.enqueue_one(
    %(task)s::text, %(args)s::jsonb, %(queue)s::text, %(priority)s::integer, %(run_at)s::timestamptz,
    %(delay)s::double precision, %(max_attempts)s::integer, %(timeout)s::double precision, %(headers)s::jsonb,
    %(key)s::text, %(holds)s::text, %(period)s::double precision, %(on_conflict)s::text, %(group_key)s::text,
    %(expires_in)s::double precision, %(scope)s::text
)
