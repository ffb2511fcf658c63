-- Notifies workers that jobs of these queues may be claimed. A table expression `AS fresh` follows,
-- with one row per queue.
SELECT pg_notify(%(channel)s, 'insert ' || fresh.queue) FROM
