-- As rate_rescale, for every group of the queue.
-- Plan: rate_state_pkey, the queue's rows.
WITH changed AS (
    UPDATE {schema}.rate_state
    SET paid_until = clock_timestamp() + interval '1 second' * least(
            extract(epoch FROM paid_until - clock_timestamp())::double precision * %(factor)s::double precision,
            %(most)s::double precision)
    WHERE queue = %(queue)s::text AND group_key > '' AND paid_until > clock_timestamp()
    RETURNING 1
)
SELECT count(*) FROM changed
