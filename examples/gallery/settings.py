"""Where the gallery keeps its things. The web process and the worker read the same variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psycopg
from sqlalchemy import Engine, create_engine

from jobq.errors import ConfigurationError
from jobq.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class GallerySettings:
    """`home` holds the files, `smtp` is host and port of the mail server, `schema` is jobq's schema."""

    database_url: str
    home: Path
    smtp: tuple[str, int] = ("127.0.0.1", 25)
    schema: str = "jobq"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> GallerySettings:
        """Read JOBQ_DATABASE_URL, JOBQ_SCHEMA, GALLERY_HOME (.jobq/gallery) and GALLERY_SMTP (127.0.0.1:25).

        Raises ConfigurationError.
        """
        env = os.environ if environ is None else environ
        settings = Settings.load(env)
        smtp = env.get("GALLERY_SMTP", "127.0.0.1:25")
        host, _, port = smtp.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigurationError(f"GALLERY_SMTP={smtp!r}: give host:port, such as 127.0.0.1:25")
        return cls(
            database_url=settings.require_database_url(),
            home=Path(env.get("GALLERY_HOME", ".jobq/gallery")).absolute(),
            smtp=(host, int(port)),
            schema=settings.schema,
        )

    def environ(self) -> dict[str, str]:
        """Return the variables that make another process load these settings."""
        return {
            "JOBQ_DATABASE_URL": self.database_url,
            "JOBQ_SCHEMA": self.schema,
            "GALLERY_HOME": str(self.home),
            "GALLERY_SMTP": f"{self.smtp[0]}:{self.smtp[1]}",
        }

    def path(self, relative: str) -> Path:
        """Return where the file stored as `relative` lies."""
        return self.home / relative


@lru_cache(maxsize=1)
def current() -> GallerySettings:
    """Return this process's settings, read from the environment at the first call."""
    return GallerySettings.load()


@lru_cache(maxsize=4)
def engine(database_url: str) -> Engine:
    """Return the process's engine for `database_url`, in any form that libpq takes."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(database_url, connect_timeout=10),
        pool_size=8,
        max_overflow=16,
        pool_pre_ping=True,
    )
