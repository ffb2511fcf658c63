-- Inserts nodes of a run; they refer to each other and to joins by their places in the arrays, from 0 (jobq/_app/workflow_rows.py makes
-- them). `former`: the number of the run's last node. `adder`: the node that adds them, with the join that those without parents wait
-- for, and what their names begin with.
CREATE OR REPLACE FUNCTION {schema}.workflow_insert_nodes(
    run_id bigint, ids bigint[], join_ids bigint[], nodes jsonb, former integer, adder bigint, first_join bigint, prefix text
) RETURNS void
LANGUAGE plpgsql
AS $body$
#variable_conflict use_column
BEGIN
    INSERT INTO {schema}.workflow_node (
        id, workflow_id, number, name, kind, join_id, members_join_id, feeds, args, inputs, condition, items, item_parameter,
        min_success, undo, added_by, task, queue, priority, delay, max_attempts, timeout, headers, group_key, expires_in)
    SELECT ids[entry.n], run_id, former + entry.n, concat(prefix, entry.value ->> 'name'), entry.value ->> 'kind',
           coalesce(join_ids[(entry.value ->> 'join')::integer + 1], first_join), join_ids[(entry.value ->> 'members_join')::integer + 1],
           ARRAY(SELECT sign(feed::integer) * join_ids[abs(feed::integer)] FROM jsonb_array_elements_text(entry.value -> 'feeds') AS feed),
           entry.value -> 'args',
           (SELECT jsonb_agg(jsonb_set(input, '{node}', to_jsonb(ids[(input ->> 'node')::integer + 1])))
            FROM jsonb_array_elements(entry.value -> 'inputs') AS input),
           CASE WHEN entry.value ? 'condition'
                THEN jsonb_set(entry.value -> 'condition', '{node}', to_jsonb(ids[(entry.value #>> '{condition,node}')::integer + 1])) END,
           CASE WHEN entry.value ? 'items_of'
                THEN jsonb_set(entry.value -> 'items_of', '{node}', to_jsonb(ids[(entry.value #>> '{items_of,node}')::integer + 1]))
                ELSE entry.value -> 'items' END,
           entry.value ->> 'item_parameter', (entry.value ->> 'min_success')::double precision, entry.value -> 'undo', adder,
           entry.value ->> 'task',
           entry.value ->> 'queue', (entry.value ->> 'priority')::smallint, (entry.value ->> 'delay')::double precision,
           (entry.value ->> 'max_attempts')::integer, (entry.value ->> 'timeout')::double precision,
           coalesce(entry.value -> 'headers', '{}'), entry.value ->> 'group_key', (entry.value ->> 'expires_in')::double precision
    FROM jsonb_array_elements(nodes) WITH ORDINALITY AS entry (value, n);
END
$body$;
