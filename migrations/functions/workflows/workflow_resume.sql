-- Looks at the joins of a run whose parents have all ended, and which were not released: after a retry (workflow_retry), and where a
-- check finds one (jobq/_worker/maintenance/workflow_runs.py). The join of a map that has not started has no parents yet: it is not complete.
CREATE OR REPLACE FUNCTION {schema}.workflow_resume(run_id bigint) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $body$
    SELECT {schema}.workflow_advance(array_agg(id), array_agg(0), array_agg(0), array_agg(0))
    FROM {schema}.workflow_join
    WHERE workflow_id = run_id AND remaining = 0 AND released_at IS NULL AND (kind <> 'map' OR parents > 0)
$body$;
