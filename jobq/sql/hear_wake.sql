-- The mode of waking, and whether some worker holds the sentinel's lock.
SELECT (SELECT last_value FROM {schema}.wake),
       EXISTS (SELECT FROM pg_locks AS lock
               WHERE lock.locktype = 'advisory' AND lock.objsubid = 2 AND lock.granted
                 AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND lock.classid = 1785684593::oid AND lock.objid = '{schema}.wake'::regclass)
