-- Returns the value of one reference to an ended node: {"node": id, "of": …, "path": [...], "default": …}.
-- of: `result` (its result, or the part at the path), `optional` (the same if it succeeded, else the default), `outcome` (an object
-- with state, result and error), `results` and `outcomes` (a marker by which the runner reads the ends of a map one after the other).
CREATE OR REPLACE FUNCTION {schema}.workflow_value(reference jsonb) RETURNS jsonb
LANGUAGE sql
STABLE
AS $body$
    SELECT CASE reference ->> 'of'
        WHEN 'results' THEN jsonb_build_object('$results', reference -> 'node')
        WHEN 'outcomes' THEN jsonb_build_object('$outcomes', reference -> 'node')
        ELSE (
            SELECT CASE
                WHEN reference ->> 'of' = 'outcome'
                    THEN jsonb_build_object('state', ended.state, 'result', ended.result, 'error', ended.error)
                WHEN reference ->> 'of' = 'optional' AND ended.state <> 'succeeded' THEN reference -> 'default'
                ELSE ended.result #> ARRAY(SELECT jsonb_array_elements_text(coalesce(reference -> 'path', '[]')))
            END
            FROM {schema}.workflow_result AS ended
            WHERE ended.node_id = (reference ->> 'node')::bigint AND ended.item IN (0, -1)
            ORDER BY ended.item LIMIT 1)
    END
$body$;
