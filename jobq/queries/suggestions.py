"""Completions of a filter text: suggestions for the term at the cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.filters import MAX_LENGTH, QUALIFIERS
from jobq.filters.words import quote
from jobq.job import STATES

MOST = 12
_BOUNDS = {"attempt": (">1", ">3", ">=10", "1"), "age": (">1h", ">1d", "<10m", "<1h", "<1d")}


def suggest(conn: Connection[Any], schema: str, text: str, cursor: int | None = None) -> list[str]:
    """Return up to 12 complete texts that could replace `text`.

    They complete the term that ends at `cursor` (default: the end of the text) with qualifiers,
    states, and recently seen queues, tasks, groups, workers and argument names. This takes a few
    milliseconds, whatever the tables contain. An invalid text raises nothing: the result is empty,
    or contains a repaired text.
    """
    cursor = len(text) if cursor is None else min(max(cursor, 0), len(text))
    if len(text) > MAX_LENGTH:
        return []
    start, end = _term(text, cursor)
    found: list[str] = []
    for term in _complete(conn, schema, text[start:cursor]):
        whole = text[:start] + term + text[end:]
        if whole not in (text, *found):
            found.append(whole)
        if len(found) == MOST:
            break
    return found


def _term(text: str, cursor: int) -> tuple[int, int]:
    """Return the start and end of the word at `cursor`; white space in quotes does not end it."""
    start, quoted, escaped = 0, False, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char.isspace() and not quoted:
            if at >= cursor:
                return start, at
            start = at + 1
    return start, len(text)


def _complete(conn: Connection[Any], schema: str, typed: str) -> Iterable[str]:
    name, colon, value = typed.partition(":")
    name = name.lower()
    if not colon:
        if name.startswith("args."):
            return _having(_args(conn, schema), typed[5:], lambda name: f"args.{quote(name)}:")
        qualifiers = [_opening(known) for known in QUALIFIERS if known.startswith(name)]
        # From two letters on, search the tasks: a bare word is the beginning of a task's name.
        tasks = _having(_tasks(conn, schema), typed, lambda task: f"task:{quote(task)}") if len(typed) >= 2 else []
        return [*qualifiers, *tasks]
    match name:
        case "state":
            given, comma, last = value.rpartition(",")
            before = given.split(",") if comma else []
            return _having(
                (state for state in STATES if state not in before), last, lambda s: f"state:{given}{comma}{s}"
            )
        case "queue":
            return _having(_queues(conn, schema), value, lambda queue: f"queue:{quote(queue)}")
        case "task":
            return _having(_tasks(conn, schema), value, lambda task: f"task:{quote(task)}")
        case "group":
            return _having(_groups(conn, schema), value, lambda group: f"group:{quote(group)}")
        case "worker":
            return _having(_workers(conn, schema), value, lambda worker: f"worker:{worker}")
        case "attempt" | "age":
            return [f"{name}:{bound}" for bound in _BOUNDS[name] if bound.startswith(value)]
    return []


def _opening(qualifier: str) -> str:
    return "args." if qualifier == "args" else f"{qualifier}:"


def _having(names: Iterable[str], typed: str, write: Callable[[str], str]) -> list[str]:
    """Return the names that begin with the typed text, then the names that contain it elsewhere."""
    part = typed.replace('"', "").removesuffix("*").lower()
    known = list(names)
    first = [name for name in known if name.lower().startswith(part)]
    return [write(name) for name in (*first, *(name for name in known if part in name.lower() and name not in first))]


def _queues(conn: Connection[Any], schema: str) -> list[str]:
    return [row["name"] for row in fetch(conn, schema, "queue_names", {})]


def _tasks(conn: Connection[Any], schema: str) -> list[str]:
    return [row["task"] for row in fetch(conn, schema, "suggest_tasks", {})]


def _workers(conn: Connection[Any], schema: str) -> list[str]:
    return [str(row["id"]) for row in fetch(conn, schema, "workers", {"tasks": False})]


def _groups(conn: Connection[Any], schema: str) -> list[str]:
    return [row["group"] for row in fetch(conn, schema, "suggest_groups", {})]


def _args(conn: Connection[Any], schema: str) -> list[str]:
    return [row["name"] for row in fetch(conn, schema, "suggest_args", {})]
