"""The SQL statements of jobq: one file each, in folders by subject.

Names are unique over all folders.

A file writes ``{schema}`` for the schema's name and doubles other braces. Parameters are psycopg's
``%(name)s``. Each file starts with a comment that says what the statement does and which plan it
must have; `tests/plans/` checks the plan. A line that begins with ``--variant`` belongs only to the
statement ``<file>:variant``. Parts that several statements share are files in `fragments/`;
statements include them (see `includes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from psycopg import sql

from jobq._postgres.sql.includes import expand

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")

REVISION = "0009"
"""The revision of the schema that these statements need: the last migration's."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement for one schema: `text` for SQLAlchemy's ``exec_driver_sql``, `query` for psycopg.

    `raw` is the same statement for psycopg's raw cursors, with placeholders ``$1``, ``$2``, … whose
    names are `names`. If a query with named placeholders is longer than 4,096 characters, psycopg
    parses it again at each call, and that takes longer than the server takes to claim a job.
    """

    name: str
    text: str
    query: bytes
    raw: bytes
    names: tuple[str, ...]

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values of `parameters` in the order of the placeholders of `raw`."""
        return [parameters[name] for name in self.names]


@lru_cache(maxsize=1)
def statement_files() -> dict[str, Traversable]:
    """Return the file of each statement by name, from all folders except `fragments`.

    Raises ValueError if two files have the same name: a bug in jobq.
    """
    found: dict[str, Traversable] = {}
    folders = [files(__name__)]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                if entry.name not in ("fragments", "__pycache__"):
                    folders.append(entry)
            elif entry.name.endswith(".sql"):
                name = entry.name.removesuffix(".sql")
                if name in found:
                    raise ValueError(f"two files are named {entry.name}: rename one of them")
                found[name] = entry
    return found


def _file(name: str) -> Traversable:
    try:
        return statement_files()[name]
    except KeyError:
        raise FileNotFoundError(f"{name}.sql") from None


@lru_cache(maxsize=256)
def _body(name: str) -> sql.SQL:
    name, _, variant = name.partition(":")
    source = _file(name).read_text(encoding="utf-8")
    source = expand(source)
    if variant:
        source = re.sub(rf"^( *)--{variant} ", r"\1", source, flags=re.MULTILINE)
    # Comments stay in the file: the server should not parse them at every call, and
    # pg_stat_statements should not keep them. The file is ours, so it may be used as a literal.
    return sql.SQL("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("--")))


def composed(name: str, schema: str, **parts: sql.Composable) -> sql.Composed:
    """Return ``sql/<name>.sql`` for psycopg, with its schema and `parts` filled in."""
    return _body(name).format(schema=sql.Identifier(schema), **parts)


@lru_cache(maxsize=256)
def statement(name: str, schema: str) -> Statement:
    """Return the statement in ``sql/<name>.sql`` with its schema filled in.

    Raises FileNotFoundError if the name has no file. That is a bug in jobq, never caused by input.
    """
    query = _body(name).format(schema=sql.Identifier(schema)).as_bytes(None)
    text = query.decode()
    names = tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))
    raw = _PLACEHOLDER.sub(lambda match: f"${names.index(match[1]) + 1}", text).replace("%%", "%")
    return Statement(name=name, text=text, query=query, raw=raw.encode(), names=names)
