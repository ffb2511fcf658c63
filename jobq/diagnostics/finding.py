"""The result of a check, and how a check queries the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from jobq._core.text import visible

if TYPE_CHECKING:
    from jobq.diagnostics.snapshot import Snapshot


class Status(StrEnum):
    """The severity of a finding: `warn` is worth knowing, `fail` needs a person now."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Fault(StrEnum):
    """The origin of a failure, if a service manager can use it: an exit code of `jobq doctor`."""

    OTHER = "other"
    CONFIGURATION = "configuration"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause in one line. `fix` says what to do; it is empty if there is nothing to do.

    `minor`: it has had no effect so far, so the overview omits it. `page` is the view of the status
    page with details, with `filters` in its URL. Control characters, which names and errors may
    contain, are escaped here, so one finding cannot look like two.
    """

    check: str
    status: Status
    message: str
    fix: str = ""
    fault: Fault = Fault.OTHER
    minor: bool = False
    page: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", visible(self.message))
        object.__setattr__(self, "fix", visible(self.fix))


Check = Callable[["Snapshot"], Iterator[Finding]]
"""Called in a separate transaction or savepoint; yields nothing if all is well."""


def rows(
    connection: psycopg.Connection[Any], query: sql.Composed | LiteralString, *params: object
) -> list[tuple[Any, ...]]:
    """Return the rows of `query`."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        composed = query if isinstance(query, sql.Composed) else sql.SQL(query)
        return cursor.execute(composed, params or None).fetchall()
