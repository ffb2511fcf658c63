-- How many turns the groups of a queue have, counted up to `bound`; how many of them are due, and since when the oldest is.
-- Plan: job_turn_idx, the queue's range.
SELECT count(*)::integer AS turns, (count(*) FILTER (WHERE entry.due_at <= statement_timestamp()))::integer AS due,
       extract(epoch FROM statement_timestamp() - min(entry.due_at))::double precision AS oldest_seconds
FROM (SELECT due_at FROM {schema}.job_turn WHERE queue = %(queue)s::text ORDER BY queue, due_at LIMIT %(bound)s::integer) AS entry
