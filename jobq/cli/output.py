"""Output of commands: JSON documents, tables, questions and progress.

Results go to standard output; notes, questions and progress go to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import click

from jobq._core.durations import format_duration as duration
from jobq._core.text import one_line, plural
from jobq.cli.exits import NotConfirmed

__all__ = [
    "AdvanceBar", "confirm", "count", "duration", "note", "one_line", "plain", "plural", "print_fields", "print_json",
    "print_table", "progress", "safe",
]  # fmt: skip

# The least width to which a column may be folded.
_MIN_WIDTH = 16


def plain(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses as objects, datetimes in ISO 8601, timedeltas in
    seconds.
    """
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
    """Print `text` on standard error. If that cannot be written, the command continues."""
    with suppress(OSError):
        click.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error; return if the answer (or `yes`) is yes.

    Raises NotConfirmed for any other answer, and a usage error if standard input has none.
    """
    if yes:
        return
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        note("")
        raise click.UsageError("no answer on standard input: pass --yes to skip the question")
    if answer.strip().lower() not in ("y", "yes"):
        raise NotConfirmed


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, right: Sequence[str] = ()
) -> None:
    """Print `rows` under `columns`, or `empty` on standard error. The columns in `right` are
    right-aligned.

    On a narrow terminal, long columns are folded; if that is not enough, each row becomes lines of
    ``name  value``.
    """
    cells = [[line(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    if sys.stdout is None:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    natural = _widths(columns, cells)
    # In a pipe or a file, no line is folded or cut: a program reads it.
    whole = sum(natural) + 3 * len(natural) + 2
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else whole)
    widths = fit(natural, console.width)
    if widths is None:
        _print_records(columns, cells, console.width)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def fit(natural: Sequence[int], width: int) -> list[int] | None:
    """Return the widths of columns whose natural widths are `natural`, for a table of at most
    `width`.

    Only columns wider than 16 shrink, to no less than 16. None: the table does not fit.
    """
    found = [min(wanted, _MIN_WIDTH) for wanted in natural]
    room = width - sum(found) - 3 * (len(found) - 1)
    if room < 0:
        return None
    # Share the remaining room equally between the columns that need more.
    while room > 0 and (wanting := [n for n, wanted in enumerate(natural) if found[n] < wanted]):
        part = max(room // len(wanting), 1)
        for n in wanting:
            more = min(part, natural[n] - found[n], room)
            found[n] += more
            room -= more
    return found


def _print_records(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as lines of `name  value`, without the empty ones, and a blank line between
    two rows.
    """
    from rich.cells import chop_cells

    names = max(map(len, columns))
    room = max(width - names - 2, 8)
    for number, row in enumerate(rows):
        if number:
            click.echo()
        for column, cell in zip(columns, row, strict=True):
            lines = [part for line in cell.split("\n") for part in chop_cells(line, room)] if cell else []
            for place, line in enumerate(lines):
                click.echo(f"{'' if place else column:<{names}}  {line}".rstrip())


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [
        max(cell_len(line) for cell in column for line in cell.split("\n"))
        for column in zip(columns, *rows, strict=True)
    ]


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one `name  value` line a field, the names aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        # Further lines of a text are indented, so that none of them looks like a field.
        text = safe(value).replace("\n", "\n" + " " * (width + 2))
        click.echo(f"{name:<{width}}  {text}".rstrip())


def safe(value: object) -> str:
    """Return `value` for a terminal: '' for None, and without control characters, which job data
    may contain.
    """
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


def line(value: object) -> str:
    """Return :func:`safe` in one line, so that a name with a line break cannot forge a line of
    output.
    """
    return safe(value).replace("\n", "\\n")


def count(number: int, limit: int | None = None) -> str:
    """Return a count for people. Above the limit at which counting stops, it is ">limit"."""
    from jobq.queries import COUNT_LIMIT

    limit = COUNT_LIMIT if limit is None else limit
    return f"{number:,}" if number <= limit else f">{limit:,}"


class AdvanceBar(Protocol):
    """Moves a progress bar."""

    def __call__(self, steps: int, /) -> None:
        """Move the bar by `steps`."""


@contextmanager
def progress(label: str, total: int) -> Iterator[AdvanceBar]:
    """Show a progress bar on standard error while the block runs, if that is a terminal and `total`
    is at least 2.
    """
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
