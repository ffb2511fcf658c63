"""Alembic's environment.

It supports any schema name, a version table inside the schema, and online-safe timeouts.

The schema's name comes from ``config.attributes["schema"]`` (jobq.migrate sets it), else from
JOBQ_SCHEMA.
"""

from __future__ import annotations

from typing import Any

import psycopg
from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError

from jobq._postgres import connecting
from jobq._postgres.blockers import LOCK_TIMEOUT, NotFree
from jobq._postgres.tables import metadata
from jobq.migrations import bridge
from jobq.settings import Settings, libpq_url

config = context.config
schema: str = config.attributes.get("schema") or Settings.load().schema
VERSION_TABLE = "schema_version"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Include only our schema, without partitions, which a maintenance task creates and drops."""
    if kind == "schema":
        return name == schema
    if kind == "table":
        return f"{schema}.{name}" in metadata(schema).tables
    return True


def configure(**kwargs: Any) -> None:
    context.configure(
        target_metadata=metadata(schema),
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        include_schemas=True,
        include_name=include_name,
        # All revisions together: no program may see a state between two revisions.
        transaction_per_migration=False,
        **kwargs,
    )


def run_offline() -> None:
    configure(
        dialect_name="postgresql",
        # The default style would double every % in the functions' bodies.
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        output_buffer=config.attributes.get("output_buffer"),
    )
    quoted = '"' + schema.replace('"', '""') + '"'
    # Alembic writes its version table first, so the schema must exist before.
    context.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
    with context.begin_transaction():
        if config.attributes.get("start"):
            context.execute(f"SET LOCAL lock_timeout = '{round(1000 * LOCK_TIMEOUT)}ms'")
            context.execute(_lock(schema, None, "ACCESS EXCLUSIVE"))
            bridge.cross_if_needed((config.attributes["start"],))
        context.run_migrations()


def _lock(schema: str, tables: tuple[str, ...] | None, mode: str) -> str:
    """Return the statement that locks the existing tables of `tables`, or all, before any change.

    If a migration held one table and waited for another, many others would wait for long.
    """
    names = tables or (*(table.name for table in metadata(schema).tables.values()), *bridge.TABLES)
    listed = ", ".join("'" + name + "'" for name in names)
    literal = "'" + schema.replace("'", "''") + "'"
    return f"""
        DO $do$
        DECLARE
            found text;
        BEGIN
            SELECT string_agg(quote_ident(nspname) || '.' || quote_ident(relname), ', ' ORDER BY relname) INTO found
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE nspname = {literal} AND relname IN ({listed}) AND relkind IN ('r', 'p');
            IF found IS NOT NULL THEN
                EXECUTE 'LOCK TABLE ' || found || ' IN {mode} MODE';
            END IF;
        END
        $do$
    """  # noqa: S608  (names of ours)


def _changes() -> bool:
    """Return whether the schema will change; `alembic current` and similar commands only read."""
    command = getattr(config.cmd_opts, "cmd", None)
    return command is None or command[0].__name__ in ("upgrade", "downgrade")


def run_online(connection: Connection) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": quoted}):
        connection.execute(text(f"CREATE SCHEMA {quoted}"))
    # A migration that does not get its locks soon gives up, so that workers and producers do not
    # queue behind it. It does so before the server looks for deadlocks, whose victim might be an
    # application's transaction; jobq.migrate tries again. The time applies to all locks together,
    # so lock_timeout, which applies to each lock, is not enough.
    milliseconds = max(1, round(1000 * config.attributes.get("lock_timeout", LOCK_TIMEOUT)))
    connection.execute(text(f"SET lock_timeout = {milliseconds:d}"))
    connection.commit()
    configure(connection=connection)
    with context.begin_transaction():
        if _changes():
            connection.execute(text(f"SET LOCAL statement_timeout = {milliseconds:d}"))
            tables, mode = config.attributes.get("locks") or (None, "ACCESS EXCLUSIVE")
            try:
                connection.exec_driver_sql(_lock(schema, tables, mode))
            except DBAPIError as error:
                if isinstance(error.orig, psycopg.errors.QueryCanceled):
                    raise NotFree from error
                raise
            # The changes have no time limit.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            bridge.cross_if_needed(context.get_context().get_current_heads())
        context.run_migrations()
    connection.commit()


if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_online(given)
else:
    url = libpq_url(config.get_main_option("sqlalchemy.url") or Settings.load().require_database_url())
    engine = connecting.engine(lambda: connecting.connect(url, "migrate"), pool.NullPool)
    with engine.connect() as own:
        run_online(own)
