-- Deletes a batch of old ticks: of all (`among` is NULL), only those of `schedules` and `ticks`
-- (true), or all except those (false). Returns their number. Only the worker that holds the
-- maintenance task runs it.
-- Plan: schedule_tick_inserted_at_idx up to the time; rows by their ctid.
WITH old AS (
    DELETE FROM {schema}.schedule_tick WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.schedule_tick
        WHERE inserted_at < now() - %(keep)s::interval
          AND (%(among)s::boolean IS NULL OR %(among)s::boolean = (
              (schedule, tick) IN (SELECT * FROM unnest(%(schedules)s::text[], %(ticks)s::timestamptz[]))))
        ORDER BY inserted_at LIMIT %(batch)s))
    RETURNING 1
)
SELECT count(*) FROM old
