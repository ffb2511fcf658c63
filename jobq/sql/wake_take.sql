-- Become the sentinel, for as long as this session lives, unless another is; and return the mode of waking. The session ends
-- by the server's doing when it asks for nothing for some seconds: a sentinel that is frozen must not keep its place.
-- 1785684593 is "jobq"; with the sequence's oid it names this schema's sentinel, in worker_beat.sql and for `jobq doctor` too.
SELECT pg_try_advisory_lock(1785684593, '{schema}.wake'::regclass::oid::bigint::bit(32)::integer),
       set_config('application_name', %(name)s, false), set_config('idle_session_timeout', %(idle)s, false)
