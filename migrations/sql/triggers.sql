-- What happens at every insert of jobs: see functions/enter_group.sql and functions/notify_insert.sql.

CREATE TRIGGER job_enter_group BEFORE INSERT ON {schema}.job
    FOR EACH ROW WHEN (NEW.group_key IS NOT NULL)
    EXECUTE FUNCTION {schema}.enter_group();

CREATE TRIGGER job_notify_insert AFTER INSERT ON {schema}.job
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.notify_insert();
