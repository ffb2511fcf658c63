-- A schedule that an operator makes, or gives other values. No row: the name is that of a schedule in code.
INSERT INTO {schema}.schedule AS old (
    name, task, args, queue, priority, max_attempts, timeout, headers, cron, every, timezone, missed, max_missed,
    tick_argument, next_at, source, made_by)
VALUES (
    %(name)s, %(task)s, %(args)s::jsonb, %(queue)s, %(priority)s, %(max_attempts)s, %(timeout)s, %(headers)s::jsonb,
    %(cron)s, %(every)s, %(timezone)s, %(missed)s, %(max_missed)s, %(tick_argument)s, %(next_at)s::timestamptz, 'run time',
    %(made_by)s)
ON CONFLICT (name) DO UPDATE SET
    task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
    max_attempts = excluded.max_attempts, timeout = excluded.timeout, headers = excluded.headers, cron = excluded.cron,
    every = excluded.every, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
    tick_argument = excluded.tick_argument, made_by = excluded.made_by, changed_at = now(), last_error = NULL,
    next_at = CASE WHEN (old.cron, old.every, old.timezone) IS NOT DISTINCT FROM
                        (excluded.cron, excluded.every, excluded.timezone)
                   THEN old.next_at ELSE excluded.next_at END
WHERE old.source = 'run time'
RETURNING name
