-- Gives the transaction that holds a row time to end.
-- Plan: one Result; no table read.
SELECT pg_sleep(0.05)
