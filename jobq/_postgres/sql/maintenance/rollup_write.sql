-- Counts rows of history by minute and queue, by minute and task, and by minute, in one pass.
-- Earlier counts of the same minutes are replaced; the depth stays. {rows} is the union of ranges
-- of pages (_worker/maintenance/rollup.py).
-- It writes at most `names` queues and tasks per minute, those with the most jobs. The minute's
-- total, which is queue '', includes all jobs.
-- If some names are refused, {some_queues} and {some_tasks} select among them.
-- Plan: Tid Range Scans, each on one partition; HashAggregate.
WITH seen AS (
    SELECT date_bin('1 minute', finished_at, 'epoch') AS at, queue, task, state, weight,
           width_bucket(date_part('epoch', started_at - run_at), {bounds}) AS wait,
           CASE WHEN state IN ('succeeded', 'failed')
                THEN width_bucket(date_part('epoch', finished_at - started_at), {bounds}) END AS run
    FROM ({rows}) AS part
), cell AS MATERIALIZED (
    SELECT at, queue, task, state, wait, run, sum(weight) AS n FROM seen GROUP BY at, queue, task, state, wait, run
), fresh AS MATERIALIZED (
    SELECT at, queue, task, grouping(queue) = 0 AS of_queue, grouping(task) = 0 AS of_task,
           row_number() OVER (PARTITION BY at, grouping(queue), grouping(task) ORDER BY sum(n) DESC, queue, task) AS place,
           round(coalesce(sum(n) FILTER (WHERE state = 'succeeded'), 0))::integer AS succeeded,
           round(coalesce(sum(n) FILTER (WHERE state = 'failed'), 0))::integer AS failed,
           round(coalesce(sum(n) FILTER (WHERE state = 'cancelled'), 0))::integer AS cancelled,
           round(coalesce(sum(n) FILTER (WHERE state = 'expired'), 0))::integer AS expired,
           ARRAY[{waits}] AS waits, ARRAY[{runs}] AS runs
    FROM cell
    GROUP BY GROUPING SETS ((at), (at, queue), (at, task))
), queues AS (
    INSERT INTO {queue_table} AS old (span, at, queue, succeeded, failed, cancelled, expired, waits, runs)
    SELECT 60, at, coalesce(queue, ''), succeeded, failed, cancelled, expired, waits, runs
    FROM fresh WHERE NOT of_task AND place <= {names} AND {some_queues}
    UNION ALL
    -- Every minute has a total. Earlier counts that are no longer found become zero.
    SELECT 60, gone.at, gone.queue, 0, 0, 0, 0, '{{}}'::integer[], '{{}}'::integer[]
    FROM ((SELECT at, '' AS queue FROM generate_series({since}, {until} - interval '1 minute', interval '1 minute') AS at
           UNION SELECT at, queue FROM {queue_table} WHERE span = 60 AND at >= {since} AND at < {until})
          EXCEPT SELECT at, coalesce(queue, '') FROM fresh WHERE NOT of_task AND place <= {names}) AS gone
    WHERE {some_queues}
    ON CONFLICT (span, at, queue) DO UPDATE
    SET (succeeded, failed, cancelled, expired, waits, runs)
        = (excluded.succeeded, excluded.failed, excluded.cancelled, excluded.expired, excluded.waits, excluded.runs)
    WHERE (old.succeeded, old.failed, old.cancelled, old.expired, old.waits, old.runs) IS DISTINCT FROM
        (excluded.succeeded, excluded.failed, excluded.cancelled, excluded.expired, excluded.waits, excluded.runs)
), tasks AS (
    INSERT INTO {task_table} AS old (span, at, task, succeeded, failed, cancelled, expired, waits, runs)
    SELECT 60, at, task, succeeded, failed, cancelled, expired, waits, runs FROM fresh
    WHERE of_task AND place <= {names} AND {some_tasks}
    UNION ALL
    SELECT 60, gone.at, gone.task, 0, 0, 0, 0, '{{}}'::integer[], '{{}}'::integer[]
    FROM (SELECT at, task FROM {task_table} WHERE span = 60 AND at >= {since} AND at < {until}
          EXCEPT SELECT at, task FROM fresh WHERE of_task AND place <= {names}) AS gone
    WHERE {some_tasks}
    ON CONFLICT (span, at, task) DO UPDATE
    SET (succeeded, failed, cancelled, expired, waits, runs)
        = (excluded.succeeded, excluded.failed, excluded.cancelled, excluded.expired, excluded.waits, excluded.runs)
    WHERE (old.succeeded, old.failed, old.cancelled, old.expired, old.waits, old.runs) IS DISTINCT FROM
        (excluded.succeeded, excluded.failed, excluded.cancelled, excluded.expired, excluded.waits, excluded.runs)
)
SELECT coalesce(sum(n), 0)::bigint FROM cell
