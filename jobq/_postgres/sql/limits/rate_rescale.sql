-- If a queue's rate changes, keeps the number of starts that were taken in advance, but at most a
-- burst of the new rate (`most` seconds). If `factor` is NULL, for a rate that is cleared, they are
-- forgotten.
-- Plan: rate_state_pkey, one row.
UPDATE {schema}.rate_state
SET paid_until = clock_timestamp() + interval '1 second' * least(
        extract(epoch FROM paid_until - clock_timestamp())::double precision * %(factor)s::double precision,
        %(most)s::double precision)
WHERE queue = %(queue)s::text AND group_key = '' AND paid_until > clock_timestamp()
RETURNING 1
