-- Returns the finished jobs by queue for each two minutes of the last hour.
-- Plan: the last hour's range of rollup_queue_pkey.
SELECT queue, (extract(epoch FROM at - %(since)s::timestamptz) / 120)::integer AS point,
       sum(succeeded + failed + cancelled + expired)::bigint AS number
FROM (SELECT queue, date_bin('2 minutes', at, %(since)s::timestamptz) AS at, succeeded, failed, cancelled, expired
      FROM {schema}.rollup_queue WHERE span = 60 AND at >= %(since)s::timestamptz) AS minute
GROUP BY queue, at
