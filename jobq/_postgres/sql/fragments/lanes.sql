-- The lanes to read, and the positions from which to read them: run_at in microseconds since 1970,
-- and id, as set by cursor.py.
unnest(
    %(queues)s::text[], %(priorities)s::smallint[], %(since)s::bigint[], %(since_ids)s::bigint[]
) WITH ORDINALITY AS lane (queue, priority, since, since_id, n)
