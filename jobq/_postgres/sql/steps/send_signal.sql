-- Sends a signal: see functions/steps/try_send_signal.sql.
-- Plan: one call.
SELECT signal_id, outcome
FROM {schema}.try_send_signal(%(job)s::bigint, %(run)s::bigint, %(name)s::text, %(payload)s::text::jsonb, %(by)s::text)
