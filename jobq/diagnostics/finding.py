"""What a check of `jobq doctor` finds, and how it asks the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from jobq.cli.exits import Exit


class Status(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report. `mend` says what to do, and is empty when nothing is to be done."""

    check: str
    status: Status
    message: str
    mend: str = ""
    exit_code: Exit = Exit.OK


Check = Callable[[psycopg.Connection[Any], str], Iterator[Finding]]
"""Called with a connection in a transaction of its own and the schema; yields nothing when all is well."""


def rows(
    connection: psycopg.Connection[Any], query: sql.Composed | LiteralString, *params: object
) -> list[tuple[Any, ...]]:
    """Return the rows of `query`."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        composed = query if isinstance(query, sql.Composed) else sql.SQL(query)
        return cursor.execute(composed, params or None).fetchall()
