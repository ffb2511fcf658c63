"""Everything that stands in a schema, for comparing one with another."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

# Constraints without NOT NULL, which is the column's: from version 18 on they have names of their own.
_CATALOGUE = """
SELECT 'relation', relname, relkind::text || coalesce(' ' || reloptions::text, '') || ' ' || relispartition || ' '
    || relreplident::text || ' ' || relowner::regrole::text || coalesce(' ' || relacl::text, '')
    FROM pg_class WHERE relnamespace = %(schema)s::regnamespace
UNION ALL
SELECT 'column', attrelid::regclass::text || '.' || attname, format_type(atttypid, atttypmod) || ' ' || attnotnull
    || ' ' || attidentity::text || ' ' || coalesce(pg_get_expr(adbin, adrelid), '') || coalesce(' ' || attacl::text, '')
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = %(schema)s::regnamespace AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p')
UNION ALL
SELECT 'constraint', conname, conrelid::regclass::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = %(schema)s::regnamespace AND contype <> 'n'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL
SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid) || ' ' || proowner::regrole::text
    || ' ' || ARRAY(SELECT acl::text FROM unnest(coalesce(proacl, acldefault('f', proowner))) AS acl ORDER BY 1)::text
    || coalesce(' ' || obj_description(oid, 'pg_proc'), '')
    FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
UNION ALL
SELECT 'trigger', tgname, pg_get_triggerdef(pg_trigger.oid) || ' ' || tgenabled::text FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = %(schema)s::regnamespace AND NOT tgisinternal
UNION ALL
SELECT 'sequence', sequencename, format('%%s %%s %%s %%s %%s', data_type, min_value, max_value, increment_by, cache_size)
    FROM pg_sequences WHERE schemaname = current_schema()
ORDER BY 1, 2, 3
"""


def catalogue(url: str, name: str = "jobq") -> list[tuple[str, str, str]]:
    """Return everything in schema `name`, as (kind, name, definition with owner and rights), without the schema's own name."""
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(name)))
        rows: list[Any] = connection.execute(_CATALOGUE, {"schema": f'"{name}"'}).fetchall()
    return sorted((kind, what, _without(text, name)) for kind, what, text in rows)


def _without(text: str, name: str) -> str:
    return text.replace(f'"{name}"', "SCHEMA").replace(name, "SCHEMA")
