-- Takes back what the removed results of jobs had counted: a retry puts these jobs back. The results that functions write themselves
-- have no job; who removes those takes them back (workflow_retry).
CREATE OR REPLACE FUNCTION {schema}.workflow_results_removed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    PERFORM {schema}.workflow_take_back(array_agg(node_id), array_agg(item), array_agg(state))
    FROM removed WHERE job_id IS NOT NULL HAVING count(*) > 0;
    RETURN NULL;
END
$body$;
