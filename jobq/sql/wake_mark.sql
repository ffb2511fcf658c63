-- A transaction id of our own, newer than that of every transaction that has one by now. Not the snapshot's xmax: that is the id after
-- the last one that has *ended*, and any number of running ones may be above it.
SELECT pg_current_xact_id()::text::bigint
