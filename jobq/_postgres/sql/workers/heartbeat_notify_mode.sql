-- Returns the notify mode, and whether some worker holds the lead poller's lock.
SELECT (SELECT last_value FROM {schema}.notify_mode),
       EXISTS (
           SELECT FROM pg_locks AS lock
           WHERE
               --include poller_lock
       )
