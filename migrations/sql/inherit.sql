-- Gives the function `heir` the owner, the rights and the comment of the function `former`: variables of the block around this one.
DECLARE
    owned_by regrole;
    said text;
    one record;
BEGIN
    SELECT proowner, obj_description(oid, 'pg_proc') INTO owned_by, said FROM pg_proc WHERE oid = former;
    FOR one IN SELECT acl.grantee FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
               WHERE oid = heir AND acl.grantee <> proowner LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', heir,
                       CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END);
    END LOOP;
    IF (SELECT proowner <> owned_by FROM pg_proc WHERE oid = heir) THEN
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', heir, owned_by);
    END IF;
    FOR one IN SELECT acl.grantee, acl.is_grantable FROM pg_proc,
                      aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
               WHERE oid = former AND acl.privilege_type = 'EXECUTE' AND acl.grantee <> proowner LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', heir,
                       CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END,
                       CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    IF said IS NOT NULL THEN
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', heir, said);
    END IF;
END;
