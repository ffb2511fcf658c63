"""The global options, and the connection of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from jobq.errors import DatabaseUnavailable

if TYPE_CHECKING:
    import psycopg

    from jobq.settings import Settings


@dataclass
class Session:
    """One run of the CLI. Arguments beat ``JOBQ_*`` variables, which beat defaults."""

    database_url: str | None = None
    direct_url: str | None = None
    schema_name: str | None = None
    debug: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings passed as arguments; None for the others."""
        return {"database_url": self.database_url, "direct_url": self.direct_url, "schema": self.schema_name}

    @cached_property
    def settings(self) -> Settings:
        """The effective settings. Raises ConfigurationError that names an invalid value."""
        from jobq.settings import Settings

        return Settings.load(**self.overrides)

    @property
    def schema(self) -> str:
        """The name of the schema."""
        return self.settings.schema

    @property
    def url(self) -> str:
        """The URL of the database, for libpq. Raises ConfigurationError if none is set."""
        return self.settings.require_database_url()

    @property
    def unpooled_url(self) -> str:
        """The URL of the database without a pooler, if one is configured; else the URL."""
        return self.settings.unpooled_url()

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection; commit at the end of the block, roll back if it raises.

        Raises DatabaseUnavailable if the database cannot be reached.
        """
        import psycopg

        from jobq._postgres import connecting
        from jobq.settings import unreachable

        url = self.url
        given = psycopg.conninfo.conninfo_to_dict(url).get("options")

        def attempt(options: str | int | None) -> psycopg.Connection[Any]:
            return connecting.connect(
                url,
                "cli",
                within=self.settings.connect_timeout,
                autocommit=autocommit,
                prepare_threshold=None,
                options=options,
            )

        try:
            try:
                # JIT-compiling the overview queries takes longer than running them.
                connection = attempt(f"{given or ''} -c jit=off".strip())
            except psycopg.OperationalError as error:
                if "unsupported startup parameter" not in str(error):
                    raise
                connection = attempt(given)  # a pooler that rejects options
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(unreachable(url, error)) from error
        connecting.read_every_time(connection)
        with connection:
            yield connection

    def child_environment(self) -> dict[str, str]:
        """Return the environment for a child process with the same settings."""
        given = {f"JOBQ_{name.upper()}": value for name, value in self.overrides.items() if value is not None}
        return {**os.environ, **given}


def current() -> Session:
    """Return the Session of this run."""
    return click.get_current_context().ensure_object(Session)


def actor() -> str:
    """Return the actor for the audit: JOBQ_ACTOR, or the user and host with "(cli)"."""
    from jobq.operations.audit import current_actor

    return current_actor("cli")
