-- Lets whoever holds a row come to an end.
-- Plan: one Result; no table read.
SELECT pg_sleep(0.05)
