-- Returns the time up to which the last rollup counted (NULL: there was none), and the minute up to
-- which this one can.
-- Plan: the end of rollup_queue_pkey's range for span 60.
SELECT (SELECT at + interval '1 minute' FROM {schema}.rollup_queue
        WHERE span = 60 AND at <= clock_timestamp() AND queue = '' ORDER BY at DESC LIMIT 1),
       date_bin('1 minute', clock_timestamp(), 'epoch')
