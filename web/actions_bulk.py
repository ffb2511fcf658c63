"""The forms of bulk operations: preview, start, pause, resume, cancel. Each needs the permission of its action as well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from jobq import operations, queries
from jobq.errors import OperationRefused
from jobq.filters import MAX_LENGTH, JobFilter
from jobq.pagetables import OPERATION_ACTIONS
from jobq.web import fields
from jobq.web.actions import back
from jobq.web.context import current_page, searchable
from jobq.web.routes import Route


def operation_draft() -> Response:
    """Store what is asked for, count it, and show it: nothing changes before it is started there."""
    page = current_page()
    action = request.form.get("action", "")
    if action not in OPERATION_ACTIONS:
        abort(400, f"action={action[:50]!r}: give one of {', '.join(OPERATION_ACTIONS)}.")
    page.require(action)
    options = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.options(action).items()
    }
    jobs = searchable(JobFilter.parse(request.form.get("q", "")[: MAX_LENGTH + 1]))
    with page.database.write() as conn:
        made = operations.draft(
            conn, page.settings.schema, action=action, filter=jobs, options=options, actor=page.actor()
        )
    return redirect(url_for(".operation", id=made.id), 303)


def operation_start(id: int) -> Response:
    """Let a draft begin: with a reason, and the number of jobs where they are many."""
    typed, rate, reason = fields.whole("typed"), fields.decimal("rate"), fields.text("reason") or ""
    return _turn(id, operations.start, "The operation has begun.", reason=reason, typed=typed, rate=rate)


def operation_pause(id: int) -> Response:
    """Let an operation rest after the batch under way."""
    return _turn(id, operations.pause_operation, "The operation is paused.", reason=fields.text("reason"))


def operation_resume(id: int) -> Response:
    """Let an operation go on."""
    return _turn(id, operations.resume_operation, "The operation goes on.", reason=fields.text("reason"))


def operation_cancel(id: int) -> Response:
    """End an operation after the batch under way; what was done stays done."""
    said = "The operation is cancelled; what it had done stays done."
    return _turn(id, operations.cancel_operation, said, reason=fields.text("reason"))


def _turn(id: int, change: Callable[..., operations.Operation], said: str, **values: Any) -> Response:
    page = current_page()
    try:
        with page.database.write() as conn:
            page.require(queries.operation(conn, page.settings.schema, id).action)
            changed = change(conn, page.settings.schema, id, actor=page.actor(), **values)
    except OperationRefused as refused:
        # As after a reload: the change is done already, or another user has ended the operation.
        return back("operation", f"Nothing changed: {refused}.", id=id)
    if changed.state == "running":
        page.executor.wake()
    return back("operation", said, id=id)


ROUTES = [
    Route("/operations/draft", "POST", operation_draft, needs="bulk"),
    Route("/operations/<int:id>/start", "POST", operation_start, needs="bulk"),
    Route("/operations/<int:id>/pause", "POST", operation_pause, needs="bulk"),
    Route("/operations/<int:id>/resume", "POST", operation_resume, needs="bulk"),
    Route("/operations/<int:id>/cancel", "POST", operation_cancel, needs="bulk"),
]
