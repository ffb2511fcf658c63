-- Returns which queues are paused, and when a queue's rules last changed, as text that is only
-- compared.
-- Plan: the queue table is small and is read whole.
SELECT ARRAY(SELECT name FROM {schema}.queue WHERE paused_at IS NOT NULL), (SELECT max(changed_at)::text FROM {schema}.queue)
