"""Alembic's environment: any schema name, the version table inside the schema, online-safe timeouts.

The schema's name comes from ``config.attributes["schema"]`` (jobq.migrate sets it), else from JOBQ_SCHEMA.
"""

from __future__ import annotations

from typing import Any

import psycopg
from alembic import context
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from jobq import sessions
from jobq.blockers import LOCK_TIMEOUT, NotFree
from jobq.config import Settings, libpq_url
from jobq.schema import metadata

config = context.config
schema: str = config.attributes.get("schema") or Settings.load().schema
VERSION_TABLE = "schema_version"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Look at our schema only, and not at the partitions, which a chore makes and drops."""
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
        # Together: no program is to meet a state between two revisions.
        transaction_per_migration=False,
        **kwargs,
    )


def run_offline() -> None:
    configure(
        dialect_name="postgresql",
        # The default style would double every % of the functions' bodies.
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        output_buffer=config.attributes.get("output_buffer"),
    )
    quoted = '"' + schema.replace('"', '""') + '"'
    # Alembic writes its version table first, so the schema must stand before it.
    context.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
    with context.begin_transaction():
        if config.attributes.get("start"):
            context.execute(f"SET LOCAL lock_timeout = '{round(1000 * LOCK_TIMEOUT)}ms'")
            context.execute(_lock(schema, None, "ACCESS EXCLUSIVE"))
        context.run_migrations()


def _lock(schema: str, tables: tuple[str, ...] | None, mode: str) -> str:
    """Return the statement that takes the locks of the tables there are, `tables` or all, before anything is changed.

    A migration that holds one table and waits for another would keep many waiting for long.
    """
    names = tables or tuple(table.name for table in metadata(schema).tables.values())
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
    """Tell whether the schema is to be changed; `alembic current` and its like only look."""
    command = getattr(config.cmd_opts, "cmd", None)
    return command is None or command[0].__name__ in ("upgrade", "downgrade")


def run_online(connection: Connection) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": quoted}):
        connection.execute(text(f"CREATE SCHEMA {quoted}"))
    # A migration that cannot get its locks soon gives up, rather than making every worker and producer queue behind it. It does
    # so before the server looks for deadlocks, of which an application's transaction might be the victim; jobq.migrate tries
    # again. All locks together have that time, so not only lock_timeout, which is for each.
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
            # The changes take as long as they take.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        context.run_migrations()
    connection.commit()


if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_online(given)
else:
    url = libpq_url(config.get_main_option("sqlalchemy.url") or Settings.load().require_database_url())
    engine = create_engine("postgresql+psycopg://", creator=lambda: sessions.connect(url), poolclass=pool.NullPool)
    with engine.connect() as own:
        run_online(own)
