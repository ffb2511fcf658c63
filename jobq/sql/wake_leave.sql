-- Give up the sentinel's place, and tell every worker that it is free. In one statement: a worker that hears it finds it so.
SELECT pg_advisory_unlock(1785684593, '{schema}.wake'::regclass::oid::bigint::bit(32)::integer), pg_notify(%(channel)s, %(told)s)
