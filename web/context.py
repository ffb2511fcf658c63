"""Finding the mounted page that serves this request, and reading what the request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import abort, g, request

from jobq.errors import InvalidFilter, InvalidOption
from jobq.filters import MAX_ID, MAX_LENGTH, STATES, JobFilter
from jobq.queries import Cursor

if TYPE_CHECKING:
    from jobq.web.page import Page


def current_page() -> Page:
    """Return the Page that serves this request."""
    page: Page = g.jobq_page
    return page


def for_programs() -> bool:
    """Whether this is one of the JSON addresses, wherever the page is mounted and whatever queues are called."""
    root = current_page().root if "jobq_page" in g else "/"
    path = (request.script_root + request.path).removeprefix(root)
    return path.startswith("api/") or path in ("jobs.ndjson", "suggest", "series", "metrics")


def forget(*_: Any, **__: Any) -> None:
    """Drop all that `g` has of a request: its user, above all.

    Where the host application has pushed an application context and left it there, as many do in the module that the server
    imports, Flask uses that one for every request, and `g` outlives them all.
    """
    for name in [name for name in g if name.startswith("jobq_")]:
        g.pop(name)


_SHORTCUTS = ("state", "queue", "task")


def filters(source: Any = None) -> dict[str, str | None]:
    """Return the filter's text (`q`) and its shortcuts (state, queue and task) from the address or a form; abort with 400
    where one cannot be.
    """
    values = request.args if source is None else source
    found: dict[str, str | None] = {}
    for name in ("q", *_SHORTCUTS):
        value = values.get(name, "").strip()
        longest = MAX_LENGTH if name == "q" else 200
        if "\x00" in value or len(value) > longest:
            abort(400, f"{name}: give at most {longest} characters, none of them NUL.")
        found[name] = value or None
    if found["state"] is not None and found["state"] not in STATES:
        abort(400, f"state={found['state']!r}: give one of {', '.join(STATES)}.")
    return found


def job_filter(wanted: Mapping[str, str | None]) -> JobFilter:
    """Return the jobs meant by what :func:`filters` returned; abort with 400 where that says nothing."""
    shortcuts = {name: wanted[name] for name in _SHORTCUTS}
    try:
        return searchable(JobFilter.parse(wanted["q"] or "").narrowed(**shortcuts))
    except InvalidFilter as error:
        abort(400, f"{error}.")


def searchable(selected: JobFilter) -> JobFilter:
    """Return the filter; abort with 403 where it asks for a field that is hidden from this role: to find is to see."""
    redact = current_page().redact
    for term in selected.args:
        if redact.hides("args", term.path):
            path = ".".join(("args", *term.path))
            abort(403, f"{path} is hidden from your role, and so cannot be searched for.")
    if selected.tag is not None and redact.hides("headers", ("tags",)):
        abort(403, "headers.tags is hidden from your role, and so cannot be searched for.")
    return selected


def subject() -> str:
    """Return the name of what a page is about, from the address: any text without NUL, which no name has."""
    name = request.args.get("name", "")
    if not name or "\x00" in name:
        abort(404)
    return name


def named(field: str) -> str:
    """Return what a form is about: from its address, for a browser changes line ends in fields, or else from the field."""
    return request.args.get(field) or request.form.get(field, "")


def ordering() -> tuple[str | None, Cursor | None]:
    """Return the order that the address asks for and where its list goes on; abort with 400 for what is neither."""
    order = request.args.get("order", "").strip() or None
    before = request.args.get("before", "").strip()
    try:
        return order, Cursor.parse(before) if before else None
    except InvalidOption as error:
        abort(400, f"{error}.")


def number(name: str, default: int | None, largest: int = MAX_ID, source: Any = None) -> int | None:
    """Return a whole number from 1 to `largest` from the address or a form; abort with 400 for anything
    else.
    """
    text = (request.args if source is None else source).get(name, "").strip()
    if not text:
        return default
    # int() takes signs, underscores and other scripts' digits, and minutes for millions of them.
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= largest):
        abort(400, f"{name}={text[:50]!r}: give a whole number from 1 to {largest}.")
    return int(text)
