"""The mounted page that serves the current request, and the parameters in the request's address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import abort, g, request

from jobq.errors import InvalidFilter, InvalidOption
from jobq.filters import MAX_ID, MAX_LENGTH, JobFilter
from jobq.job import STATES
from jobq.queries import Cursor

if TYPE_CHECKING:
    from jobq.web.page import Page


def current_page() -> Page:
    """Return the Page that serves this request."""
    page: Page = g.jobq_page
    return page


def wants_json() -> bool:
    """Return whether this request is for an address that answers with JSON or text, and not with a
    page.
    """
    root = current_page().root if "jobq_page" in g else "/"
    path = (request.script_root + request.path).removeprefix(root)
    return path.startswith("api/") or path in ("jobs.ndjson", "suggest", "series", "metrics")


def clear_request_state(*_: Any, **__: Any) -> None:
    """Remove everything that `g` holds of an earlier request, above all its user.

    If the host application has pushed an application context and never popped it, as many do in the
    module that the server imports, Flask uses that context for every request, and `g` outlives
    them.
    """
    for name in [name for name in g if name.startswith("jobq_")]:
        g.pop(name)


_SHORTCUTS = ("state", "queue", "task")


def filters(source: Any = None) -> dict[str, str | None]:
    """Return the filter's text (`q`) and its shortcuts (state, queue, task) from the address, or
    from `source`.

    Aborts with 400 for an invalid value.
    """
    values = request.args if source is None else source
    found: dict[str, str | None] = {}
    for name in ("q", *_SHORTCUTS):
        value = values.get(name, "").strip()
        longest = MAX_LENGTH if name == "q" else 200
        if "\x00" in value or len(value) > longest:
            abort(400, f"{name}: expected at most {longest} characters, none of them NUL.")
        found[name] = value or None
    if found["state"] is not None and found["state"] not in STATES:
        abort(400, f"state={found['state']!r}: expected one of {', '.join(STATES)}.")
    return found


def job_filter(wanted: Mapping[str, str | None]) -> JobFilter:
    """Return the filter described by what :func:`filters` returned; abort with 400 if it is
    invalid.
    """
    shortcuts = {name: wanted[name] for name in _SHORTCUTS}
    try:
        return searchable(JobFilter.parse(wanted["q"] or "").narrowed(**shortcuts))
    except InvalidFilter as error:
        abort(400, f"{error}.")


def searchable(selected: JobFilter) -> JobFilter:
    """Return the filter; abort with 403 if it names a field hidden from this role, since a search
    would reveal its values.
    """
    redact = current_page().redact
    for term in selected.args:
        if redact.hides("args", term.path):
            path = ".".join(("args", *term.path))
            abort(403, f"{path} is hidden from your role and cannot be searched.")
    if selected.tag is not None and redact.hides("headers", ("tags",)):
        abort(403, "headers.tags is hidden from your role and cannot be searched.")
    return selected


def name_from_address() -> str:
    """Return the name of the queue or schedule in the address; abort with 404 without one, or with
    NUL in it.
    """
    name = request.args.get("name", "")
    if not name or "\x00" in name:
        abort(404)
    return name


def name_from_form(field: str) -> str:
    """Return the name in a form: from the form's address, since browsers change line ends in
    fields, else from the field.
    """
    return request.args.get(field) or request.form.get(field, "")


def ordering() -> tuple[str | None, Cursor | None]:
    """Return the order and the cursor in the address; abort with 400 if one is invalid."""
    order = request.args.get("order", "").strip() or None
    before = request.args.get("before", "").strip()
    try:
        return order, Cursor.parse(before) if before else None
    except InvalidOption as error:
        abort(400, f"{error}.")


def int_arg(name: str, default: int | None, largest: int = MAX_ID, source: Any = None) -> int | None:
    """Return a whole number from 1 to `largest` from the address, or from `source`; abort with 400
    for anything else.
    """
    text = (request.args if source is None else source).get(name, "").strip()
    if not text:
        return default
    # Checked before int(), which accepts signs, underscores and other scripts' digits, and is slow
    # for long texts.
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= largest):
        abort(400, f"{name}={text[:50]!r}: expected a whole number from 1 to {largest}.")
    return int(text)


def text_arg(name: str, longest: int = 200) -> str | None:
    """Return a text from the address without surrounding white space; None if it is empty. Aborts
    with 400 for one that is too long or has NUL in it.
    """
    value = request.args.get(name, "").strip()
    if "\x00" in value or len(value) > longest:
        abort(400, f"{name}: expected at most {longest} characters, none of them NUL.")
    return value or None
