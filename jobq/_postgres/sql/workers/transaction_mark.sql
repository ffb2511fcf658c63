-- Returns a transaction id of our own, newer than that of every transaction that has one by now. It
-- is not the snapshot's xmax: that is the id after the last transaction that has *ended*, and any
-- number of running ones may have higher ids.
SELECT pg_current_xact_id()::text::bigint
