-- Counts the ready groups of a queue, up to `bound`, and how many of them are due; returns since
-- when the oldest is.
-- Plan: group_ready_idx, the queue's range.
SELECT count(*)::integer AS turns, (count(*) FILTER (WHERE entry.due_at <= statement_timestamp()))::integer AS due,
       extract(epoch FROM statement_timestamp() - min(entry.due_at))::double precision AS oldest_seconds
FROM (SELECT due_at FROM {schema}.group_ready WHERE queue = %(queue)s::text ORDER BY queue, due_at LIMIT %(bound)s::integer) AS entry
