-- Waits briefly, so that the transaction that holds a row can end.
-- Plan: one Result; no table read.
SELECT pg_sleep(0.05)
