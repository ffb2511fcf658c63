-- Returns the queues and tasks that rollup_write.sql would write. If all together are refused, they
-- are written in parts.
-- Plan: as rollup_write.sql.
WITH seen AS MATERIALIZED (
    SELECT DISTINCT queue, task FROM ({rows}) AS part
)
SELECT 'queue', queue FROM seen
UNION SELECT 'task', task FROM seen
UNION SELECT 'queue', ''
UNION SELECT 'queue', queue FROM {queue_table} WHERE span = 60 AND at >= {since} AND at < {until}
UNION SELECT 'task', task FROM {task_table} WHERE span = 60 AND at >= {since} AND at < {until}
