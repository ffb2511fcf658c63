"""The stored functions in `functions/`, with a mark that shows whether a function has changed.

The mark is the hash of the function's text, without the comments above it and with the fragments
that it includes (`jobq/_postgres/sql/fragments/`). It is a comment in the last line of the function's
source::

    -- text 5f0c…

It therefore needs no table, is included in dumps and copies, and leaves COMMENT ON FUNCTION to
users. If a function is changed by hand, its source differs, and the next migration replaces it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jobq._postgres.sql.includes import expand

BEGINS = "CREATE OR REPLACE FUNCTION "
_ENDS = re.compile(r"\$(\w*)\$;\s*\Z")


@dataclass(frozen=True, slots=True)
class StoredFunction:
    """One stored function, for one schema."""

    name: str
    mark: str
    """The last line of its source."""
    text: str
    """The statement that creates or replaces it."""
    source: str
    """The value of `pg_proc.prosrc` after that."""


def quoted(schema: str) -> str:
    """Return the schema's name as an identifier."""
    return '"' + schema.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def fill(text: str, schema: str) -> str:
    """Return `text` with the schema's name in place of its placeholders: see README.md."""
    text = text.replace("{schema}", quoted(schema)).replace("{schema_literal}", literal(schema))
    return text.replace("{job_id_sequence}", literal(f"{quoted(schema)}.job_id_seq"))


def _fragments(folder: Path | Traversable) -> Callable[[str], str] | None:
    """Return a reader of these functions' fragments, if the folder has its own: old texts do."""
    own = folder.joinpath("fragments")
    return (lambda name: own.joinpath(f"{name}.sql").read_text(encoding="utf-8")) if own.is_dir() else None


def _sql_files(folder: Path | Traversable) -> Iterator[Path | Traversable]:
    """Yield the files in `folder` and its folders by subject, except its fragments."""
    for entry in folder.iterdir():
        if entry.name.endswith(".sql"):
            yield entry
        elif entry.is_dir() and entry.name != "fragments":
            yield from _sql_files(entry)


def stored_functions(schema: str, folder: Path | Traversable | None = None) -> Iterator[StoredFunction]:
    """Yield the functions in `folder` (default: the current ones), one from each file, by name.

    Raises ValueError unless a file contains exactly one CREATE OR REPLACE FUNCTION whose source is
    dollar-quoted.
    """
    folder = folder or files("jobq.migrations").joinpath("functions")
    entries = sorted(_sql_files(folder), key=lambda entry: entry.name)
    for entry in entries:
        whole = expand(entry.read_text(encoding="utf-8"), read=_fragments(folder))
        begin, end = re.search(rf"^{BEGINS}", whole, flags=re.MULTILINE), _ENDS.search(whole)
        if begin is None or end is None or whole.count(BEGINS) != 1:
            raise ValueError(f"{entry.name}: it must have one CREATE OR REPLACE FUNCTION … AS $body$ … $body$;")
        text = whole[begin.start() :]
        mark = f"-- text {hashlib.sha256(text.encode()).hexdigest()[:32]}"
        body = f"{whole[begin.start() : end.start()]}{mark}\n"
        filled, tag = fill(body, schema), f"${end[1]}$"
        yield StoredFunction(entry.name.removesuffix(".sql"), mark, f"{filled}{tag}", filled.partition(f"AS {tag}")[2])
