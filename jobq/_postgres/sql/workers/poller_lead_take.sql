-- Makes this worker the lead poller as long as this session lives, unless another worker is, and
-- returns the notify mode. The server ends the session if it sends nothing for some seconds: a
-- frozen lead poller must not keep the lock.
-- 1785684593 is "jobq". With the sequence's oid it identifies this schema's lead poller, also in the
-- fragment poller_lock.
SELECT pg_try_advisory_lock(1785684593, '{schema}.notify_mode'::regclass::oid::bigint::bit(32)::integer),
       set_config('application_name', %(name)s, false), set_config('idle_session_timeout', %(idle)s, false)
