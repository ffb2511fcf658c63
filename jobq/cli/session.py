"""What the global options say, and the connection that commands share."""

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

    from jobq.config import Settings


@dataclass
class Session:
    """One run of the CLI. Arguments beat ``JOBQ_*`` variables, which beat defaults."""

    database_url: str | None = None
    schema_name: str | None = None
    debug: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings given as arguments; None for those that were not."""
        return {"database_url": self.database_url, "schema": self.schema_name}

    @cached_property
    def settings(self) -> Settings:
        """The settings in force. Raises ConfigurationError naming what cannot be used."""
        from jobq.config import Settings

        return Settings.load(**self.overrides)

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self.settings.schema

    @property
    def url(self) -> str:
        """The database's URL for libpq. Raises ConfigurationError when none is set."""
        return self.settings.require_database_url()

    @property
    def unpooled_url(self) -> str:
        """The URL that leads to the database without a pooler, as far as we were told of one."""
        return self.settings.unpooled_url()

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection; commit when the block ends well, roll back otherwise.

        Raises DatabaseUnavailable when there is none to be had.
        """
        import psycopg

        from jobq import sessions
        from jobq.config import unreachable

        url = self.url
        timeout = max(1, round(self.settings.connect_timeout))
        given = psycopg.conninfo.conninfo_to_dict(url).get("options")

        def attempt(options: str | int | None) -> psycopg.Connection[Any]:
            return sessions.connect(
                url,
                autocommit=autocommit,
                prepare_threshold=None,
                connect_timeout=timeout,
                application_name="jobq cli",
                options=options,
            )

        try:
            try:
                # Compiling the overviews takes longer than running them.
                connection = attempt(f"{given or ''} -c jit=off".strip())
            except psycopg.OperationalError as error:
                if "unsupported startup parameter" not in str(error):
                    raise
                connection = attempt(given)  # a pooler, which knows no options
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(unreachable(url, error)) from error
        sessions.read_every_time(connection)
        with connection:
            yield connection

    def child_environment(self) -> dict[str, str]:
        """Return the environment for a child process that is to work with the same settings."""
        given = {f"JOBQ_{name.upper()}": value for name, value in self.overrides.items() if value is not None}
        return {**os.environ, **given}


def current() -> Session:
    """Return this run's session."""
    return click.get_current_context().ensure_object(Session)


def actor() -> str:
    """Return the actor for the audit: JOBQ_ACTOR, or the user and host with "(cli)"."""
    from jobq.operations.actors import current_actor

    return current_actor("cli")
