-- Returns the rollup's counts of the last hour, all queues together, if it ran within the last four
-- minutes; the time up to which it has counted, and the end of the current minute.
-- Plan: the last hour's range of rollup_queue_pkey.
SELECT (extract(epoch FROM this.minute - rolled.at) / 60)::integer AS minutes_ago, rolled.succeeded, rolled.failed,
       rolled.cancelled, rolled.expired, max(rolled.at) OVER () + interval '1 minute' AS until,
       this.minute + interval '1 minute' AS now_until
FROM (SELECT date_bin('1 minute', now(), 'epoch') AS minute) AS this
JOIN {schema}.rollup_queue AS rolled
    ON rolled.span = 60 AND rolled.queue = '' AND rolled.at > this.minute - interval '1 hour' AND rolled.at < this.minute
WHERE EXISTS (SELECT FROM {schema}.rollup_queue AS newest
              WHERE newest.span = 60 AND newest.queue = '' AND newest.at >= this.minute - interval '4 minutes'
                AND newest.at < this.minute)
