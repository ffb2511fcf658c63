"""What commands print: JSON documents, tables, questions and progress.

Standard output carries the answer; notes, questions and progress go to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import click

from jobq.cli.exits import NotConfirmed


def plain(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses as objects, datetimes in ISO 8601, timedeltas in seconds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case bytes():
            return value.decode("utf-8", "replace")
        case Iterable():
            return [plain(item) for item in value]
        case _:
            return str(value)


def print_json(value: Any) -> None:
    """Print `value` as the one JSON document of this command."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Tell people something on standard error."""
    click.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error; return when the answer (or `yes`) is yes.

    Raises NotConfirmed when it is anything else, and a usage error when nobody is there to answer.
    """
    if yes:
        return
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        note("")
        raise click.UsageError("no answer on standard input: pass --yes to go ahead without a question")
    if answer.strip().lower() not in ("y", "yes"):
        raise NotConfirmed


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, right: Sequence[str] = ()
) -> None:
    """Print `rows` under `columns` (those in `right` aligned so), or say `empty` on standard error."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    # Into a pipe or file no line is folded or cut, whatever the width: the reader there is a program.
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _widest(columns, cells))
    console.print(table)


def _widest(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    return sum(widths) + 3 * len(widths) + 2


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one `name  value` line a field, the names aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name:<{width}}  {safe(value)}".rstrip())


def safe(value: object) -> str:
    """Return `value` for a terminal: '' for None, and no control characters, since job data may hold any."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case float():
            return f"{value:,.1f}"
        case int():
            return str(value)
        case _:
            text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str | None, limit: int = 70) -> str:
    """Return the first line of `text`, cut to `limit` characters."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


# Infinity, NaN, 1e300: of a value that was written past the tables' constraints.
_EVER = 1e12


def duration(seconds: float | None) -> str:
    """Return `seconds` for people: ``850 ms``, ``12 s``, ``3 m 20 s``, ``5 h 2 m``; '' for None."""
    if seconds is None:
        return ""
    if not abs(seconds) < _EVER:
        return "-∞" if seconds < 0 else "∞"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    raise AssertionError(whole)


def count(number: int, limit: int | None = None) -> str:
    """Return a count for people; one above the limit at which counting stops is "more than"."""
    from jobq.queries import COUNT_LIMIT

    limit = COUNT_LIMIT if limit is None else limit
    return f"{number:,}" if number <= limit else f">{limit:,}"


def plural(count: int, noun: str) -> str:
    """Return ``1 job`` or ``1,234 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Advance(Protocol):
    """Called with how many more are done."""

    def __call__(self, steps: int, /) -> None:
        """Move the bar."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs, if that is a terminal and there is work."""
    if total < 2 or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.update(task, advance=steps)
