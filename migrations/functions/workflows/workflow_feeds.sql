-- Returns what the ends of these nodes or items count at each join that they feed. Arrays in parallel; `items`: the item of a map, 0
-- for a task, -1 for a map itself. A negative feed is a parent whose failure does not count there: any end will do.
CREATE OR REPLACE FUNCTION {schema}.workflow_feeds(ids bigint[], items integer[], states text[])
RETURNS TABLE (join_id bigint, ends integer, failures integer, skips integer)
LANGUAGE sql
STABLE
AS $body$
    SELECT abs(feed.id), count(*)::integer,
           count(*) FILTER (WHERE feed.id > 0 AND over.state NOT IN ('succeeded', 'skipped'))::integer,
           count(*) FILTER (WHERE feed.id > 0 AND over.state = 'skipped')::integer
    FROM unnest(ids, items, states) AS over (id, item, state)
    CROSS JOIN LATERAL (SELECT kind, members_join_id, feeds FROM {schema}.workflow_node WHERE workflow_node.id = over.id OFFSET 0) AS node
    CROSS JOIN LATERAL unnest(CASE WHEN node.kind = 'map' AND over.item >= 0 THEN ARRAY[node.members_join_id] ELSE node.feeds END)
        AS feed (id)
    GROUP BY abs(feed.id)
    ORDER BY abs(feed.id)
$body$;
