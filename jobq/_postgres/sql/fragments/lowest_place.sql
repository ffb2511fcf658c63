-- The position, in microseconds since 1970, from which workers must read a queue again after jobs
-- came back to it at their old run_at.
(extract(epoch FROM greatest('epoch', least(min(run_at), now()))) * 1000000)::bigint
