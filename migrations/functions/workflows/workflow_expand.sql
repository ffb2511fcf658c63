-- Inserts the jobs of a map's items from `from_item` on, at most `most`, and about 64 MB of arguments that they share; returns the first
-- item that is left, or NULL. `only_items`: of these items, and no others.
CREATE OR REPLACE FUNCTION {schema}.workflow_expand(map_id bigint, from_item integer, most integer, only_items integer[] DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
DECLARE
    map record;
    all_items jsonb;
    shared jsonb;
BEGIN
    SELECT * INTO map FROM {schema}.workflow_node WHERE id = map_id;
    all_items := CASE WHEN jsonb_typeof(map.items) = 'array' THEN map.items ELSE {schema}.workflow_value(map.items) END;
    shared := CASE WHEN map.inputs IS NULL THEN map.args ELSE {schema}.workflow_args(map.args, map.inputs) END;
    most := least(most, greatest(67108864 / octet_length(shared::text), 1));
    INSERT INTO {schema}.job (
        node_id, node_item,
        --include insert_job
    )
    SELECT map_id, entry.n - 1, map.task, shared || jsonb_build_object(map.item_parameter, entry.item),
           map.queue, map.priority, clock_timestamp() + coalesce(map.delay, 0) * interval '1 second', map.max_attempts,
           map.timeout, map.headers, map.group_key, clock_timestamp() + map.expires_in * interval '1 second'
    FROM jsonb_array_elements(all_items) WITH ORDINALITY AS entry (item, n)
    WHERE entry.n > from_item AND entry.n <= from_item + most AND (only_items IS NULL OR entry.n - 1 = ANY (only_items))
    ORDER BY entry.n;
    RETURN CASE WHEN from_item + most < jsonb_array_length(all_items) THEN from_item + most END;
END
$body$;
