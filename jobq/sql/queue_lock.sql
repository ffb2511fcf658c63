-- Waits for the claims of a managed queue, and lets none begin until this transaction ends: as claim_managed does itself.
-- Plan: one Result; no table read.
SELECT pg_advisory_xact_lock(format('%%I.job_turn', %(schema)s::text)::regclass::oid::integer, hashtext(%(queue)s::text))
