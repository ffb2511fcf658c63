-- The mode of waking, as it is now.
SELECT last_value FROM {schema}.wake
