-- The ticks that schedule_ticks_expire.sql would delete, to be deleted in parts where all together are refused; the times as text.
-- Plan: schedule_tick_inserted_at_idx up to the time.
SELECT schedule, tick::text FROM {schema}.schedule_tick
WHERE inserted_at < now() - %(keep)s::interval ORDER BY inserted_at LIMIT %(batch)s
