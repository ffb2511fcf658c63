"""Alembic's environment: any schema name, the version table inside the schema, online-safe timeouts.

The schema's name comes from ``config.attributes["schema"]`` (jobq.migrate sets it), else from JOBQ_SCHEMA.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from jobq import sessions
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
        context.run_migrations()


def _locks(connection: Connection) -> str | None:
    """Return the statement that locks all tables there are; None for a new schema.

    All before anything is changed: a migration that holds one table and waits for another would keep many waiting for long.
    """
    if not config.attributes.get("lock_tables", True):
        return None
    query = text(
        "SELECT string_agg(format('%I.%I', nspname, relname), ', ' ORDER BY relname) FROM pg_class "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = :schema AND relname = ANY (:names) AND relkind IN ('r', 'p')"
    )
    names = [table.name for table in metadata(schema).tables.values()]
    found = connection.scalar(query, {"schema": schema, "names": names})
    return f"LOCK TABLE {found} IN ACCESS EXCLUSIVE MODE" if found else None


def run_online(connection: Connection) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": quoted}):
        connection.execute(text(f"CREATE SCHEMA {quoted}"))
    connection.commit()
    # A migration that cannot get its lock soon gives up, rather than making every worker and producer queue behind it. It does
    # so before the server looks for deadlocks, of which an application's transaction might be the victim; jobq.migrate tries
    # again.
    milliseconds = round(1000 * config.attributes.get("lock_timeout", 5.0))
    connection.execute(text(f"SET lock_timeout = {milliseconds:d}"))
    connection.commit()
    configure(connection=connection)
    with context.begin_transaction():
        if lock := _locks(connection):
            connection.exec_driver_sql(lock)
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
