-- Inserts or updates a schedule on behalf of an operator. No row: a schedule in code has the name.
INSERT INTO {schema}.schedule AS old (
    name, task, args, queue, priority, max_attempts, timeout, headers, group_key, key, expires_in, cron, every, timezone, missed, max_missed,
    tick_argument, next_at, source, made_by)
VALUES (
    %(name)s, %(task)s, %(args)s::jsonb, %(queue)s, %(priority)s, %(max_attempts)s, %(timeout)s, %(headers)s::jsonb,
    %(group_key)s, %(key)s, %(expires_in)s,
    %(cron)s, %(every)s, %(timezone)s, %(missed)s, %(max_missed)s, %(tick_argument)s, %(next_at)s::timestamptz, 'runtime',
    %(made_by)s)
ON CONFLICT (name) DO UPDATE SET
    task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
    max_attempts = excluded.max_attempts, timeout = excluded.timeout, headers = excluded.headers, group_key = excluded.group_key,
    key = excluded.key, expires_in = excluded.expires_in, cron = excluded.cron,
    every = excluded.every, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
    tick_argument = excluded.tick_argument, made_by = excluded.made_by, changed_at = now(), last_error = NULL,
    next_at = CASE WHEN (old.cron, old.every, old.timezone) IS NOT DISTINCT FROM
                        (excluded.cron, excluded.every, excluded.timezone)
                   THEN old.next_at ELSE excluded.next_at END
WHERE old.source = 'runtime'
RETURNING name
