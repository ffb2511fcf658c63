-- Returns the current notify mode.
SELECT last_value FROM {schema}.notify_mode
