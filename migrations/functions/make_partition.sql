-- Makes the partition of `parent` for one UTC day; returns its name, or NULL when it is there already or there is nothing left of
-- the day to make one for. Call it in a transaction of its own: it locks the default partition until the end.
-- CREATE … LIKE and ATTACH, since CREATE … PARTITION OF would lock the parent against every acknowledgement.
-- Rows of the day that lie in the default partition would forbid the new one. Up to `most` of them are moved into it, in the same
-- commit, so that every reader sees each row once. With more than that the partition begins behind the last of them, and they
-- stay where they are: readers find them, and retention deletes them there.
-- SECURITY DEFINER: the worker's role owns no table.
CREATE OR REPLACE FUNCTION {schema}.make_partition(parent text, day date, most integer DEFAULT 20000) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
AS $body$
DECLARE
    part constant text := parent || '_' || to_char(day, 'YYYYMMDD');
    rest constant text := parent || '_rest';
    since timestamptz := day::timestamp AT TIME ZONE 'UTC';
    until constant timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    last_one timestamptz;
    rows bigint;
BEGIN
    IF parent NOT IN ('job_history_succeeded', 'job_history_failed', 'job_history_cancelled', 'job_history_expired',
                      'job_attempt') THEN
        RAISE EXCEPTION 'make_partition: % is not partitioned by day', parent USING ERRCODE = '22023';
    END IF;
    IF to_regclass(format('%I.%I', {schema_literal}, part)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I.%I WHERE finished_at >= $1 AND finished_at < $2 LIMIT $3) AS counted',
                   {schema_literal}, rest) INTO rows USING since, until, most + 1;
    IF rows > most AND until <= clock_timestamp() + interval '1 minute' THEN
        -- It would begin behind its own end, so nothing is locked for it.
        RETURN NULL;
    END IF;
    IF rows <= most AND since <= clock_timestamp() THEN
        -- Rows of this day may be written now. A writer that has chosen the default partition and waits for it would be refused
        -- there once the day is made; one that waits for the parent has chosen nothing yet. For a day to come none is written.
        EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', {schema_literal}, parent);
    END IF;
    -- ATTACH would take this lock later. Taken first, it waits for acknowledgements that are writing there, and none comes between.
    EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', {schema_literal}, rest);
    IF rows > most THEN
        EXECUTE format('SELECT max(finished_at) FROM %I.%I WHERE finished_at >= $1 AND finished_at < $2',
                       {schema_literal}, rest) INTO last_one USING since, until;
        -- Some are being written at this moment, with the time at which their transaction began.
        since := greatest(date_trunc('second', last_one) + interval '1 second', least(clock_timestamp(), until) + interval '1 minute');
        IF since >= until THEN
            RETURN NULL;
        END IF;
    END IF;
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                   {schema_literal}, part, parent);
    -- Under a publication its rows could neither be changed nor deleted otherwise.
    EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY FULL', {schema_literal}, part);
    IF rows <= most THEN
        EXECUTE format('WITH moved AS (DELETE FROM %1$I.%2$I WHERE finished_at >= $1 AND finished_at < $2 RETURNING *)'
                       ' INSERT INTO %1$I.%3$I SELECT * FROM moved', {schema_literal}, rest, part) USING since, until;
    END IF;
    EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                   {schema_literal}, parent, part, since, until);
    RETURN part;
END
$body$;
