-- Sends a signal to a durable job from SQL: a signal of this name to `job_id`, in the caller's transaction. Returns the signal's id. Raises an
-- error if the job has finished (55000, object not in prerequisite state) or does not exist (P0002, no data found).
--     SELECT jobq.send_signal(4711, 'approval', jsonb_build_object('by', current_user));
CREATE OR REPLACE FUNCTION {schema}.send_signal(job_id bigint, name text, payload jsonb DEFAULT 'null') RETURNS bigint
LANGUAGE plpgsql
AS $body$
DECLARE
    signal_id bigint;
    outcome text;
BEGIN
    SELECT sent.signal_id, sent.outcome INTO signal_id, outcome
    FROM {schema}.try_send_signal(send_signal.job_id, NULL, send_signal.name, coalesce(send_signal.payload, 'null'), session_user) AS sent;
    IF outcome = 'finished' THEN
        RAISE EXCEPTION 'job % has finished: no signal % was sent', send_signal.job_id, send_signal.name USING ERRCODE = '55000';
    ELSIF outcome = 'unknown' THEN
        RAISE EXCEPTION 'there is no job %: no signal % was sent', send_signal.job_id, send_signal.name USING ERRCODE = 'P0002';
    END IF;
    RETURN signal_id;
END
$body$;
