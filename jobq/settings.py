"""Settings. An argument overrides a ``JOBQ_*`` variable, which overrides the default.

The description of each field states its meaning, its default and the cost of another value;
`jobq config` prints the same text.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import quote, unquote, urlencode

from jobq._core.logs.attempt import LARGEST, SMALLEST
from jobq.errors import ConfigurationError

POOLERS = ("auto", "transaction", "none")
# Settings that may hold a secret. Each may be read from a file named by JOBQ_…_FILE, because command
# lines and environments are not private. `jobq config` hides the passwords in them.
IN_FILES = ("database_url", "direct_url")
_LONGEST_SECRET = 10_000
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a JobQ needs to know about its environment. Create it with :meth:`load`."""

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
    attempt_log_bytes: int = _setting(
        64 * 1024,
        "Bytes of log records kept with each attempt that did not succeed, the newest (default: 64 KiB; 0 keeps none). "
        "Anyone who may see a job can read them, on the page too, which redacts nothing in them. More costs disk for each "
        "failed attempt, and memory for each running job; keeping any formats each record of a task once more.",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str) or not _SCHEMA_NAME.fullmatch(self.schema):
            raise ConfigurationError(
                f"schema={self.schema!r}: expected 1 to 63 letters, digits and underscores, not starting with a digit"
            )
        if self.schema.lower().startswith("pg_") or self.schema.lower() == "information_schema":
            raise ConfigurationError(
                f"schema={self.schema!r}: PostgreSQL keeps this name for itself (pg_…, information_schema); use another name"
            )
        for name in ("database_url", "direct_url"):
            if (value := getattr(self, name)) is not None:
                _check_url(name, value)
        for name in ("pool_size", "max_args_bytes", "max_result_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: expected a number of at least 1")
        if self.attempt_log_bytes and not SMALLEST <= self.attempt_log_bytes <= LARGEST:
            raise ConfigurationError(
                f"attempt_log_bytes={self.attempt_log_bytes!r}: expected 0, or a number from {SMALLEST} to {LARGEST}"
            )
        if self.pooler not in POOLERS:
            raise ConfigurationError(f"pooler={self.pooler!r}: expected one of {', '.join(POOLERS)}")
        if not self.connect_timeout > 0:
            raise ConfigurationError(f"connect_timeout={self.connect_timeout!r}: expected a number of seconds above 0")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Return settings from `overrides` that are not None, the environment and the defaults.

        Raises ConfigurationError, which names the variable whose value is unusable.
        """
        return cls(**{name: value for name, (value, _) in cls.origins(environ, **overrides).items()})

    @classmethod
    def origins(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, tuple[Any, str]]:
        """Return the value and the origin of each setting.

        The origin is ``argument``, the name of the variable, or ``default``.
        """
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
        """Return `direct_url` in libpq's form, or the database URL if it is not set."""
        return libpq_url(self.direct_url) if self.direct_url else self.require_database_url()

    def sqlalchemy_url(self) -> str:
        """Return the database URL for SQLAlchemy's ``create_engine``, with jobq's driver.

        Raises ConfigurationError if it is not set.
        """
        return url_of(self.require_database_url()).replace("postgresql://", "postgresql+psycopg://", 1)

    def require_database_url(self) -> str:
        """Return the database URL in libpq's form. Raises ConfigurationError if it is not set."""
        if not self.database_url:
            raise ConfigurationError(
                "no database: set JOBQ_DATABASE_URL, pass database_url=…, or start `jobq dev`, which brings a Postgres"
            )
        return libpq_url(self.database_url)


def read_secret(path: str, name: str) -> str:
    """Return the content of a file without surrounding white space.

    Args:
        path: the file (``-``: standard input).
        name: name of the setting for the error message.

    Raises:
        ConfigurationError: the file cannot be read, is empty, has several lines, or is longer
            than 10,000 characters. The message has `name`, never the content.
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
    """Return `url` in libpq's form: without SQLAlchemy's driver suffix."""
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url)


def url_of(conninfo: str, **changes: str) -> str:
    """Return a URL or conninfo as a ``postgresql://`` URL, with `changes` (``dbname="test"``).

    psycopg accepts the result, and SQLAlchemy accepts it with ``postgresql+psycopg://`` in front.
    Socket directories, several hosts, and every parameter other than user, password, host, port and
    database follow the ``?``.
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
    """Raise ConfigurationError unless `value` is a URL for libpq or its SQLAlchemy form."""
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}: expected text; a SQLAlchemy URL becomes that by "
            "url.render_as_string(hide_password=False)"
        )
    scheme = re.match(r"([A-Za-z][\w.-]*)(?:\+(\w+))?://", value)
    if scheme is None:
        return
    if scheme[1] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"{name}={redact_url(value)!r}: expected a postgresql:// URL, or libpq's host=… dbname=…"
        )
    if scheme[2] not in (None, "psycopg", "psycopg_async"):
        raise ConfigurationError(
            f"{name}={redact_url(value)!r} names the driver {scheme[2]}: jobq connects with psycopg; "
            "use postgresql://… or postgresql+psycopg://…, and enqueue on connections of psycopg"
        )


# Parameters of libpq whose values are secret.
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_SECRET_OF_CONNINFO = re.compile(rf"\b({'|'.join(_SECRETS)})(\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.)+)", re.DOTALL)


def redact_url(url: str) -> str:
    """Return a URL or conninfo without its passwords, for logs and screens."""
    if "://" not in url:
        return _SECRET_OF_CONNINFO.sub(r"\1\2***", url)
    scheme, _, rest = url.partition("://")
    # As libpq reads it, a password has no "@" or "/", but may have "?" and "#". A password that was
    # not encoded may have any of them, and must not be shown either.
    end = rest.find("@")
    end = -1 if "/" in rest[: max(end, 0)] else end
    place, mark, query = rest[end + 1 :].partition("?")
    credentials, at, hosts = f"{rest[: end + 1]}{place}".rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = "&".join(map(_redacted_parameter, query.split("&")))
    return f"{scheme}://{user}{':***' if colon else ''}{at}{hosts}{mark}{shown}"


def _redacted_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}=***" if equals and unquote(name) in _SECRETS else parameter


# What a server or libpq says if no connection is possible, and what to do about it.
_FIXES = (
    (
        "password authentication failed",
        "correct the user and the password in JOBQ_DATABASE_URL (or PGPASSWORD, ~/.pgpass)",
    ),
    ("no password supplied", "set a password in JOBQ_DATABASE_URL, PGPASSWORD or ~/.pgpass"),
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
    """Return the message for an unreachable database: where, why, and what to do."""
    text = str(error).strip()
    fix = next((fix for sign, fix in _FIXES if sign in text), "is it running, and is JOBQ_DATABASE_URL right?")
    # libpq appends a line for each possible cause; SQLAlchemy appends a link.
    reason = text.partition("\n")[0].removeprefix("connection failed: ").rstrip("?. ")
    return f"cannot reach the database {redact_url(url)}: {reason}; {fix}"


def _parse(variable: str, text: str, default: Any) -> Any:
    kind = type(default) if default is not None else str
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{variable}={text!r}: expected a value of type {kind.__name__}") from None
