"""Bulk operations: the list, one operation, and the forms that preview, start, pause, resume and
cancel one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from jobq import operations as ops
from jobq import queries
from jobq._postgres.tables.page import OPERATION_ACTIONS
from jobq.errors import InvalidFilter, OperationRefused
from jobq.filters import MAX_LENGTH, JobFilter
from jobq.web import forms
from jobq.web.context import current_page, int_arg, searchable
from jobq.web.forms import redirect_with_note
from jobq.web.routes import Route

_PAGE = 50
_SAMPLE = 20


def operations() -> str:
    """List bulk operations, newest first."""
    page = current_page()
    before = int_arg("before", None)
    with page.database.read() as reader:
        found = reader(queries.operations, limit=_PAGE + 1, before_id=before, default=[])
        now = reader.now()
    if any(entry.state == "running" for entry in found):
        # Started by the command line, or by a process that has ended since.
        page.bulk_runner.wake()
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render("operations.html", operations=found[:_PAGE], before=before, more=more, now=now)


def operation(id: int) -> str:
    """Show one bulk operation: its preview, its progress, or its result."""
    page = current_page()
    after = int_arg("after", None) or 0
    with page.database.read() as reader:
        found = reader(queries.operation, id, name="operation")
        sample = None
        if found is not None and found.state == "draft" and not found.is_stale:
            try:
                sample = reader(queries.search_jobs, found.jobs, limit=_SAMPLE, name="sample")
            except InvalidFilter:
                # Another version wrote a filter that this one cannot parse; the page shows its
                # text.
                sample = None
        batches = reader(queries.operation_batches, id, after=after, default=[])
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title=f"Operation {id}", now=now)
    if found.state == "running":
        page.bulk_runner.wake()
    return page.render(
        "operation.html", it=found, sample=sample.rows if sample else [], batches=batches, after=after, now=now
    )


def operation_draft() -> Response:
    """Store a draft, count its jobs, and show it. Nothing changes before a user starts it there."""
    page = current_page()
    action = request.form.get("action", "")
    if action not in OPERATION_ACTIONS:
        abort(400, f"action={action[:50]!r}: expected one of {', '.join(OPERATION_ACTIONS)}.")
    page.require(action)
    options = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in forms.options(action).items()
    }
    jobs = searchable(JobFilter.parse(request.form.get("q", "")[: MAX_LENGTH + 1]))
    with page.database.write() as conn:
        made = ops.draft(conn, page.settings.schema, action=action, filter=jobs, options=options, actor=page.actor())
    return redirect(url_for(".operation", id=made.id), 303)


def operation_start(id: int) -> Response:
    """Start a draft. This needs a reason and, for many jobs, their typed number."""
    typed, rate, reason = forms.whole("typed"), forms.decimal("rate"), forms.text("reason") or ""
    return _set_state(id, ops.start, "The operation is started.", reason=reason, typed=typed, rate=rate)


def operation_pause(id: int) -> Response:
    """Pause an operation after the current batch."""
    return _set_state(id, ops.pause_operation, "The operation is paused.", reason=forms.text("reason"))


def operation_resume(id: int) -> Response:
    """Resume an operation."""
    return _set_state(id, ops.resume_operation, "The operation is resumed.", reason=forms.text("reason"))


def operation_cancel(id: int) -> Response:
    """Cancel an operation after the current batch. Changes already made stay."""
    note = "The operation is cancelled. Changes already made stay."
    return _set_state(id, ops.cancel_operation, note, reason=forms.text("reason"))


def _set_state(id: int, change: Callable[..., ops.Operation], note: str, **values: Any) -> Response:
    page = current_page()
    try:
        with page.database.write() as conn:
            page.require(queries.operation(conn, page.settings.schema, id).action)
            changed = change(conn, page.settings.schema, id, actor=page.actor(), **values)
    except OperationRefused as refused:
        # For example after a reload: the change is already done, or another user has ended the
        # operation.
        return redirect_with_note("operation", f"Nothing changed: {refused}.", id=id)
    if changed.state == "running":
        page.bulk_runner.wake()
    return redirect_with_note("operation", note, id=id)


ROUTES = [
    Route("/operations", "GET", operations, needs="view"),
    Route("/operations/<int:id>", "GET", operation, needs="view"),
    Route("/operations/draft", "POST", operation_draft, needs="bulk"),
    Route("/operations/<int:id>/start", "POST", operation_start, needs="bulk"),
    Route("/operations/<int:id>/pause", "POST", operation_pause, needs="bulk"),
    Route("/operations/<int:id>/resume", "POST", operation_resume, needs="bulk"),
    Route("/operations/<int:id>/cancel", "POST", operation_cancel, needs="bulk"),
]
