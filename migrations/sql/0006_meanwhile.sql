-- A call of enqueue that was under way when the tables were locked goes on with the former function, which knows no scopes. It is not to
-- take a key that a job has by now, of whatever task: as before, keys are one space to it. Revision 0008 removes this.
CREATE FUNCTION {schema}.keep_key() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    RETURN CASE WHEN NOT EXISTS (SELECT FROM {schema}.job_key AS held WHERE held.key = NEW.key) THEN NEW END;
END
$body$;

CREATE TRIGGER job_key_keep BEFORE INSERT ON {schema}.job_key
    FOR EACH ROW WHEN (NEW.scope = '' AND NEW.task IS NULL)
    EXECUTE FUNCTION {schema}.keep_key();
