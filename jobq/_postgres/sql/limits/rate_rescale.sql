-- When a queue's rate becomes another, the starts that were taken in advance stay as many, at most a burst of the new one
-- (`most` seconds); with `factor` NULL, for a rate that is cleared, they are forgotten.
-- Plan: gate_pkey, one row.
UPDATE {schema}.gate
SET paid_until = clock_timestamp() + interval '1 second' * least(
        extract(epoch FROM paid_until - clock_timestamp())::double precision * %(factor)s::double precision,
        %(most)s::double precision)
WHERE queue = %(queue)s::text AND group_key = '' AND paid_until > clock_timestamp()
RETURNING 1
