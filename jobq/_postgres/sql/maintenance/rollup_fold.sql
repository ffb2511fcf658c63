-- Sums the spans that touch a stretch of time from the next shorter spans. The depth is that at the
-- end: the newest known.
-- If some names are refused, {some} selects among the names.
-- Plan: the range of the primary key for the shorter span, at most ten minutes' or an hour's rows.
INSERT INTO {table} AS old (span, at, {of}, succeeded, failed, cancelled, expired, waits, runs{depth})
SELECT {span}, date_bin({width}, at, 'epoch') AS whole, {of}, sum(succeeded), sum(failed), sum(cancelled), sum(expired),
       ARRAY[{waits}], ARRAY[{runs}]{depth_values}
FROM {table}
WHERE span = {shorter} AND at >= date_bin({width}, {since}, 'epoch') AND at < date_bin({width}, {until}, 'epoch') + {width}
    AND {some}
GROUP BY whole, {of}
ON CONFLICT (span, at, {of}) DO UPDATE
SET succeeded = excluded.succeeded, failed = excluded.failed, cancelled = excluded.cancelled, expired = excluded.expired,
    waits = excluded.waits, runs = excluded.runs{depth_update}
