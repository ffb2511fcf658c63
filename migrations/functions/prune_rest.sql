-- Deletes up to `most` rows (NULL: all) that finished more than `keep` ago from the default partition of `parent`, where rows are for
-- which no day had been made; of these `jobs`, if they are given (rest_due.sql). Returns how many. Locked rows are left for the
-- next time.
-- SECURITY DEFINER: the worker's role may delete no history.
CREATE OR REPLACE FUNCTION {schema}.prune_rest(parent text, keep interval, most integer, jobs bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
SET enable_seqscan = on
AS $body$
DECLARE
    pruned bigint;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'prune_rest: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'prune_rest: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
    END IF;
    EXECUTE format('DELETE FROM %1$I.%2$I WHERE ctid = ANY (ARRAY('
                   'SELECT ctid FROM %1$I.%2$I WHERE finished_at <= now() - $1 AND ($3 IS NULL OR %3$I = ANY ($3)) LIMIT $2 '
                   'FOR UPDATE SKIP LOCKED))',
                   {schema_literal}, parent || '_rest', CASE parent WHEN 'job_attempt' THEN 'job_id' ELSE 'id' END)
        USING keep, most, jobs;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$body$;
