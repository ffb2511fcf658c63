-- Returns the arguments of a node with the values of its references. Each of `inputs` is a reference (functions/workflows/workflow_value.sql)
-- with the place of its value in the arguments: "at": [...]. A part that a result does not have becomes null.
CREATE OR REPLACE FUNCTION {schema}.workflow_args(args jsonb, inputs jsonb) RETURNS jsonb
LANGUAGE plpgsql
STABLE
AS $body$
DECLARE
    input jsonb;
BEGIN
    FOR input IN SELECT jsonb_array_elements(inputs) LOOP
        args := jsonb_set(args, ARRAY(SELECT jsonb_array_elements_text(input -> 'at')),
                          coalesce({schema}.workflow_value(input), 'null'));
    END LOOP;
    RETURN args;
END
$body$;
