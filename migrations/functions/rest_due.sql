-- Locks up to `most` rows that prune_rest.sql would delete, but for those of the jobs `aside`; returns the ids of their jobs.
-- SECURITY DEFINER: as prune_rest.sql is, whose locks these are.
CREATE OR REPLACE FUNCTION {schema}.rest_due(parent text, keep interval, most integer, aside bigint[]) RETURNS bigint[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
SET enable_seqscan = on
AS $body$
DECLARE
    ids bigint[];
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'rest_due: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'rest_due: keep => %: give an interval of 0 or more', keep USING ERRCODE = '22023';
    END IF;
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT id), ''{}'') FROM ('
                   'SELECT %3$I AS id FROM %1$I.%2$I WHERE finished_at <= now() - $1 AND %3$I <> ALL ($3) LIMIT $2 '
                   'FOR UPDATE SKIP LOCKED) AS old',
                   {schema_literal}, parent || '_rest', CASE parent WHEN 'job_attempt' THEN 'job_id' ELSE 'id' END)
        INTO ids USING keep, most, aside;
    RETURN ids;
END
$body$;
