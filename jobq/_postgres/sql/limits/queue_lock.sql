-- Waits for the claims of a limited queue, and blocks new ones until this transaction ends, as
-- claim_limited itself does.
-- Plan: one Result; no table read.
SELECT pg_advisory_xact_lock(format('%%I.group_ready', %(schema)s::text)::regclass::oid::integer, hashtext(%(queue)s::text))
