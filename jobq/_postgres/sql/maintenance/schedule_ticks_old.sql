-- Returns the ticks that schedule_ticks_expire.sql would delete, with times as text. If all
-- together are refused, they are deleted in parts.
-- Plan: schedule_tick_inserted_at_idx up to the time.
SELECT schedule, tick::text FROM {schema}.schedule_tick
WHERE inserted_at < now() - %(keep)s::interval ORDER BY inserted_at LIMIT %(batch)s
