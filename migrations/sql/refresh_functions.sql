-- refresh_functions in steps.py: creates or replaces each of the functions (name, mark, whether a former one stays, text), unless it
-- is there with this mark, and with no other source.
DO $do$
DECLARE
    checked constant text := current_setting('check_function_bodies');
    wanted record;
    former regprocedure;
    heir regprocedure;
    retired name;
BEGIN
    -- A function may be newer than the tables: a later revision of the same transaction changes those.
    PERFORM set_config('check_function_bodies', 'off', true);
    FOR wanted IN SELECT * FROM (VALUES {functions}) AS stored (name, mark, stays, text) LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_proc WHERE pronamespace = {namespace}::regnamespace AND proname = wanted.name
                              AND strpos(prosrc, wanted.mark) > 0 AND strpos(wanted.text, prosrc) > 0);
        -- One that a user has put beside ours, with other parameters, has no mark.
        former := (SELECT oid FROM pg_proc WHERE pronamespace = {namespace}::regnamespace AND proname = wanted.name
                   ORDER BY prosrc ~ '-- text [0-9a-f]{32}\s*$' DESC, oid LIMIT 1);
        BEGIN
            EXECUTE wanted.text;
        EXCEPTION WHEN invalid_function_definition THEN
            IF former IS NULL THEN
                RAISE;
            END IF;
            -- The same parameters with other names, or another result: it can neither be replaced nor stand beside the former one.
            EXECUTE format('ALTER FUNCTION %s RENAME TO %I', former, wanted.name || '_former');
            EXECUTE wanted.text;
        END;
        heir := (SELECT oid FROM pg_proc WHERE pronamespace = {namespace}::regnamespace AND proname = wanted.name
                 AND strpos(prosrc, wanted.mark) > 0);
        CONTINUE WHEN former IS NULL OR former = heir;
        {inherit}
        retired := wanted.name || '_' || {former};
        IF wanted.stays AND NOT EXISTS (SELECT FROM pg_proc AS there JOIN pg_proc AS own USING (pronamespace, proargtypes)
                                        WHERE own.oid = former AND there.proname = retired) THEN
            EXECUTE format('ALTER FUNCTION %s RENAME TO %I', former, retired);
        ELSE
            EXECUTE format('DROP FUNCTION %s', former);
        END IF;
    END LOOP;
    PERFORM set_config('check_function_bodies', checked, true);
END
$do$;
