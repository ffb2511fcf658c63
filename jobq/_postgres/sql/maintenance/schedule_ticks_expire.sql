-- Deletes a batch of ticks that were inserted long ago: of all (`among` is NULL), of those of `schedules` and `ticks` alone (true),
-- or of all but those (false). Returns how many. One worker at a time does, which holds the chore.
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
