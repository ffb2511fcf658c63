-- Notifies the other workers of these queues. For more than 100 queues it sends one message, and
-- workers look for themselves. A transaction that does nothing else writes no row and flushes
-- nothing.
SELECT pg_notify(%(channel)s, CASE WHEN cardinality(%(queues)s::text[]) > 100 THEN 'many' ELSE 'due ' || due.queue END)
FROM unnest(%(queues)s::text[]) AS due (queue)
