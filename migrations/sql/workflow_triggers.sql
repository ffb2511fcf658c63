-- What happens at every end of a workflow's node: see the functions' files.

CREATE TRIGGER workflow_results_added AFTER INSERT ON {schema}.workflow_result
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.workflow_results_added();

CREATE TRIGGER workflow_results_removed AFTER DELETE ON {schema}.workflow_result
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.workflow_results_removed();
