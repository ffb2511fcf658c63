-- The condition on `lock`, a row of pg_locks: some worker holds the lock of poller_lead_take.sql, and
-- so is the lead poller of this schema.
lock.locktype = 'advisory' AND lock.objsubid = 2 AND lock.granted
AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND lock.classid = 1785684593::oid AND lock.objid = '{schema}.notify_mode'::regclass
