"""Settings: an argument beats a ``JOBQ_*`` variable, which beats the default.

Each field says what it means, its default and what choosing otherwise costs; `jobq config` prints the same.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from jobq.errors import ConfigurationError

POOLERS = ("auto", "transaction", "none")
# Each may also be the content of a file that JOBQ_…_FILE names: command lines and environments can be read by others.
IN_FILES = ("database_url", "direct_url")
_LONGEST_SECRET = 10_000
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a JobQ needs to know of its surroundings. Build it with :meth:`load`."""

    database_url: str | None = _setting(
        None,
        "Postgres to use, as a URL or libpq conninfo (default: none; `jobq dev` and `jobq demo` bring an embedded one). "
        "SQLAlchemy's postgresql+psycopg:// form is accepted too. JOBQ_DATABASE_URL_FILE names a file that holds it.",
    )
    direct_url: str | None = _setting(
        None,
        "The same database without the pooler, where database_url leads through one (default: none). Only for what a "
        "pooler in transaction mode cannot carry: workers listen there for notifications, and `jobq migrate` works there. "
        "Costs one server connection per worker; without it such workers find jobs by polling.",
    )
    schema: str = _setting(
        "jobq",
        "Postgres schema that holds jobq's tables, and the NOTIFY channel (default: jobq). Two schemas are two separate "
        "job systems: separate histories and keys, but also separate workers to run.",
    )
    pool_size: int = _setting(
        4,
        "Most connections that one process keeps for submit() and result() (default: 4). More lets more threads submit at "
        "once; each is a Postgres backend. enqueue() on your own connection uses none.",
    )
    connect_timeout: float = _setting(
        10.0,
        "Seconds to wait for a connection (default: 10). Shorter fails sooner during a failover, longer rides it out.",
    )
    pooler: str = _setting(
        "auto",
        "Whether a pooler such as PgBouncer stands before the database: auto, transaction or none (default: auto, which "
        "finds out for each connection and takes any pooler for one in transaction mode). Behind one, a worker does without "
        "prepared statements and without its advisory lock, so claims cost more and a killed worker's jobs wait for the "
        "whole lease. `none` is right for a pooler in session mode, and wrong for any other: locks would leak.",
    )
    max_args_bytes: int = _setting(
        1024 * 1024,
        "Largest JSON of one job's arguments, in bytes (default: 1 MiB). Large arguments slow every claim that carries "
        "them: store the data in a table of yours and pass its id.",
    )
    max_result_bytes: int = _setting(
        1024 * 1024,
        "Largest JSON of one job's result, in bytes (default: 1 MiB). A larger one is not stored: the job succeeds, "
        "and its result says why it is missing.",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str) or not _SCHEMA_NAME.fullmatch(self.schema):
            raise ConfigurationError(
                f"schema={self.schema!r}: give 1 to 63 letters, digits and underscores, not starting with a digit"
            )
        if self.schema.lower().startswith("pg_") or self.schema.lower() == "information_schema":
            raise ConfigurationError(
                f"schema={self.schema!r}: PostgreSQL keeps this name for itself (pg_…, information_schema); give another"
            )
        for name in ("database_url", "direct_url"):
            if (value := getattr(self, name)) is not None:
                _check_url(name, value)
        for name in ("pool_size", "max_args_bytes", "max_result_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a number of at least 1")
        if self.pooler not in POOLERS:
            raise ConfigurationError(f"pooler={self.pooler!r}: give one of {', '.join(POOLERS)}")
        if not self.connect_timeout > 0:
            raise ConfigurationError(f"connect_timeout={self.connect_timeout!r}: give a number of seconds above 0")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Return settings from `overrides` (those that are not None), the environment and the defaults, in this order.

        Raises ConfigurationError naming the variable whose value cannot be used.
        """
        return cls(**{name: value for name, (value, _) in cls.origins(environ, **overrides).items()})

    @classmethod
    def origins(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, tuple[Any, str]]:
        """Return each setting's value and where it came from: ``argument``, the variable's name, or ``default``."""
        env = os.environ if environ is None else environ
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(set(overrides) - set(known)):
            raise ConfigurationError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")
        found: dict[str, tuple[Any, str]] = {}
        for name, spec in known.items():
            variable = f"JOBQ_{name.upper()}"
            if overrides.get(name) is not None:
                found[name] = (overrides[name], "argument")
            elif env.get(variable):
                found[name] = (_parse(variable, env[variable], spec.default), variable)
            elif name in IN_FILES and (path := env.get(f"{variable}_FILE")):
                found[name] = (read_secret(path, f"{variable}_FILE"), f"{variable}_FILE")
            else:
                found[name] = (spec.default, "default")
        return found

    def unpooled_url(self) -> str:
        """Return `direct_url` in libpq's form, or the database's URL when there is none."""
        return libpq_url(self.direct_url) if self.direct_url else self.require_database_url()

    def sqlalchemy_url(self) -> str:
        """Return the database's URL for ``create_engine`` of SQLAlchemy, with the driver that jobq needs.

        Raises ConfigurationError when there is none.
        """
        return url_of(self.require_database_url()).replace("postgresql://", "postgresql+psycopg://", 1)

    def require_database_url(self) -> str:
        """Return the database's URL in libpq's form; raise ConfigurationError when there is none."""
        if not self.database_url:
            raise ConfigurationError(
                "no database: set JOBQ_DATABASE_URL, pass database_url=…, or start `jobq dev`, which brings a Postgres"
            )
        return libpq_url(self.database_url)


def read_secret(path: str, name: str) -> str:
    """Return the content of the file at `path` (``-``: standard input) without the white space around it.

    Raises ConfigurationError, which gives `name` and never the content, for a file that cannot be read, is empty, has
    several lines, or is longer than 10,000 characters.
    """
    where = "standard input" if path == "-" else path
    try:
        if path == "-":
            text = sys.stdin.readline(_LONGEST_SECRET + 1)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise ConfigurationError(f"{name}={path!r}: {where} cannot be read: {why}") from None
    found = text.strip()
    if not found or len(text) > _LONGEST_SECRET or len(found.splitlines()) > 1:
        raise ConfigurationError(
            f"{name}={path!r}: {where} has to hold one line of at most {_LONGEST_SECRET:,} characters"
        )
    return found


def libpq_url(url: str) -> str:
    """Return `url` as libpq wants it: SQLAlchemy's driver suffix taken off."""
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url)


def url_of(conninfo: str, **changes: str) -> str:
    """Return a URL or conninfo as a ``postgresql://`` URL, with `changes` to its parameters (``dbname="test"``).

    psycopg takes it as it is, and SQLAlchemy with ``postgresql+psycopg://`` in front. A socket's directory, several hosts and
    all that is neither user, password, host, port nor database stand behind the ``?``.
    """
    from psycopg.conninfo import conninfo_to_dict

    parts = {name: str(value) for name, value in conninfo_to_dict(libpq_url(conninfo), **changes).items()}
    user, password = parts.pop("user", None), parts.pop("password", None)
    host, port, database = parts.pop("host", None), parts.pop("port", None), parts.pop("dbname", "")
    credentials = "" if user is None else quote(user, safe="")
    if password is not None:
        credentials += f":{quote(password, safe='')}"
    place = ""
    if host is not None and not host.startswith(("/", "@")) and "," not in host and "," not in (port or ""):
        place = (f"[{host}]" if ":" in host else quote(host, safe="")) + ("" if port is None else f":{port}")
        host = port = None
    query = {name: value for name, value in {"host": host, "port": port, **parts}.items() if value is not None}
    return f"postgresql://{credentials}{'@' if credentials else ''}{place}/{quote(database, safe='')}" + (
        f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
    )


def _check_url(name: str, value: object) -> None:
    """Raise ConfigurationError unless `value` is text that libpq can read, or SQLAlchemy's form of it for psycopg."""
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}: give text; a SQLAlchemy URL becomes that by "
            "url.render_as_string(hide_password=False)"
        )
    scheme = re.match(r"([A-Za-z][\w.-]*)(?:\+(\w+))?://", value)
    if scheme is None:
        return
    if scheme[1] not in ("postgresql", "postgres"):
        raise ConfigurationError(f"{name}={redact_url(value)!r}: give a postgresql:// URL, or libpq's host=… dbname=…")
    if scheme[2] not in (None, "psycopg", "psycopg_async"):
        raise ConfigurationError(
            f"{name}={redact_url(value)!r} names the driver {scheme[2]}: jobq connects with psycopg; "
            "give postgresql://… or postgresql+psycopg://…, and enqueue on connections of psycopg"
        )


def redact_url(url: str) -> str:
    """Return `url` with its password hidden, fit for logs and screens."""
    if "://" not in url:
        return re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", url)
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    query = re.sub(r"((?:^|&)password=)[^&]*", r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=f"{user}{':***' if colon else ''}{at}{hosts}", query=query))


# What a server or libpq says when no connection is possible, and what to do about it.
_FIXES = (
    (
        "password authentication failed",
        "correct the user and the password in JOBQ_DATABASE_URL (or PGPASSWORD, ~/.pgpass)",
    ),
    ("no password supplied", "give a password in JOBQ_DATABASE_URL, PGPASSWORD or ~/.pgpass"),
    ("resolve host", "correct the host in JOBQ_DATABASE_URL, or the name service"),
    ("translate host name", "correct the host in JOBQ_DATABASE_URL, or the name service"),
    ("no pg_hba.conf entry", "let the server's pg_hba.conf admit this role from here"),
    ("too many connections", "raise max_connections, or use fewer"),
    ("too many clients", "raise max_connections, or use fewer"),
    ("standby", "name the primary in JOBQ_DATABASE_URL, or every host"),
    ("read-only", "name the primary in JOBQ_DATABASE_URL, or every host"),
    ('database "', "create that database, or correct the name in JOBQ_DATABASE_URL"),
    ('role "', "create that role (deploy/roles.sql), or correct the user in JOBQ_DATABASE_URL"),
)


def unreachable(url: str, error: BaseException | str) -> str:
    """Return the sentence for a database that cannot be reached: where, why, and what to do."""
    text = str(error).strip()
    fix = next((fix for sign, fix in _FIXES if sign in text), "is it running, and is JOBQ_DATABASE_URL right?")
    # libpq adds what could be the matter, a line for each; SQLAlchemy where to read of it.
    reason = text.partition("\n")[0].removeprefix("connection failed: ").rstrip("?. ")
    return f"cannot reach the database {redact_url(url)}: {reason}; {fix}"


def _parse(variable: str, text: str, default: Any) -> Any:
    kind = type(default) if default is not None else str
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{variable}={text!r}: give a value of type {kind.__name__}") from None
