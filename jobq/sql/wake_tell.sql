-- Wake the other workers of these queues. A transaction that does nothing else writes no row and flushes nothing.
SELECT pg_notify(%(channel)s, 'due ' || due.queue) FROM unnest(%(queues)s::text[]) AS due (queue)
