-- Stores a schedule that an application declares: inserts it, or updates it if the declaration
-- differs. An operator's pause stays. If the times differ, the schedule starts over, and so does a
-- withdrawn schedule: missed ticks are not made up for. Returns the action. No row: nothing had to
-- be done, or a schedule made at run time has the name.
INSERT INTO {schema}.schedule AS old (
    name, task, args, queue, priority, max_attempts, timeout, headers, group_key, key, expires_in, cron, every, timezone, missed, max_missed,
    tick_argument, next_at, source, app, made_by)
VALUES (
    %(name)s, %(task)s, %(args)s::jsonb, %(queue)s, %(priority)s, %(max_attempts)s, %(timeout)s, %(headers)s::jsonb,
    %(group_key)s, %(key)s, %(expires_in)s,
    %(cron)s, %(every)s, %(timezone)s, %(missed)s, %(max_missed)s, %(tick_argument)s, %(next_at)s::timestamptz, 'code', %(app)s,
    %(made_by)s)
ON CONFLICT (name) DO UPDATE SET
    task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
    max_attempts = excluded.max_attempts, timeout = excluded.timeout, headers = excluded.headers, group_key = excluded.group_key,
    key = excluded.key, expires_in = excluded.expires_in, cron = excluded.cron,
    every = excluded.every, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
    tick_argument = excluded.tick_argument, app = excluded.app, made_by = excluded.made_by,
    withdrawn_at = NULL, changed_at = now(), last_error = NULL,
    next_at = CASE WHEN old.withdrawn_at IS NULL
                        AND (old.cron, old.every, old.timezone) IS NOT DISTINCT FROM
                            (excluded.cron, excluded.every, excluded.timezone)
                   THEN old.next_at ELSE excluded.next_at END
WHERE old.source = 'code' AND (
    old.withdrawn_at IS NOT NULL
    OR (old.task, old.args, old.queue, old.priority, old.max_attempts, old.timeout, old.headers, old.group_key,
        old.key, old.expires_in, old.cron, old.every,
        old.timezone, old.missed, old.max_missed, old.tick_argument, old.app)
       IS DISTINCT FROM
       (excluded.task, excluded.args, excluded.queue, excluded.priority, excluded.max_attempts, excluded.timeout,
        excluded.headers, excluded.group_key, excluded.key, excluded.expires_in, excluded.cron, excluded.every, excluded.timezone, excluded.missed, excluded.max_missed,
        excluded.tick_argument, excluded.app))
RETURNING CASE WHEN xmax = 0 THEN 'declared' ELSE 'changed' END
