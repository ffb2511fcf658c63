-- Deletes the spans that no chart shows any more: minutes after 26 hours, ten minutes after 8 days,
-- hours after 32 days.
-- Plan: the beginning of each span's range of the primary key.
WITH bound (span, at) AS MATERIALIZED (
    VALUES (60, now() - interval '26 hours'), (600, now() - interval '8 days'), (3600, now() - interval '32 days')
), queues AS (
    DELETE FROM {schema}.rollup_queue AS old USING bound WHERE old.span = bound.span AND old.at < bound.at
)
DELETE FROM {schema}.rollup_task AS old USING bound WHERE old.span = bound.span AND old.at < bound.at
