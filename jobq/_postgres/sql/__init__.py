"""The SQL statements of jobq, one file each.

A file writes ``{schema}`` where the schema's name belongs (and doubles other braces); parameters are psycopg's
``%(name)s``. Each file starts with a comment that tells what it does and which plan it must have; `tests/plans/` holds it
to that. A line that begins with ``--variant`` belongs to the statement ``<file>:variant`` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from psycopg import sql

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")

REVISION = "0008"
"""The revision of the schema that these statements are written for: the migrations' last."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement for one schema: `text` for SQLAlchemy's ``exec_driver_sql``, `query` for psycopg.

    `raw` is the same for psycopg's raw cursors: its placeholders are ``$1``, ``$2``, …, and their names are `names`. psycopg
    parses a query with named placeholders again at each call when it is longer than 4,096 characters, and that takes longer
    than the server takes to claim a job.
    """

    name: str
    text: str
    query: bytes
    raw: bytes
    names: tuple[str, ...]

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values of `parameters` in the order of `raw`'s placeholders."""
        return [parameters[name] for name in self.names]


@lru_cache(maxsize=256)
def _body(name: str) -> sql.SQL:
    name, _, variant = name.partition(":")
    source = files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    if variant:
        source = re.sub(rf"^( *)--{variant} ", r"\1", source, flags=re.MULTILINE)
    # Comments stay in the file: the server should not parse them again at every call, nor pg_stat_statements keep them.
    # The file is ours, so it may stand as a literal.
    return sql.SQL("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("--")))


def composed(name: str, schema: str, **parts: sql.Composable) -> sql.Composed:
    """Return the statement in ``sql/<name>.sql`` with its schema and the parts that it leaves open, for psycopg."""
    return _body(name).format(schema=sql.Identifier(schema), **parts)


@lru_cache(maxsize=256)
def statement(name: str, schema: str) -> Statement:
    """Return the statement in ``sql/<name>.sql`` with its schema filled in.

    Raises FileNotFoundError for a name without a file: a bug in jobq, never a matter of input.
    """
    query = _body(name).format(schema=sql.Identifier(schema)).as_bytes(None)
    text = query.decode()
    names = tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))
    raw = _PLACEHOLDER.sub(lambda match: f"${names.index(match[1]) + 1}", text).replace("%%", "%")
    return Statement(name=name, text=text, query=query, raw=raw.encode(), names=names)
