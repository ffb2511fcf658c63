"""The forms that change single jobs, ticked ones and workers. Each goes back to where it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from jobq import operations
from jobq.web import fields
from jobq.web.context import current_page, number
from jobq.web.routes import Route

_MOST = 500
_CHANGES: dict[str, Callable[..., operations.Changed]] = {
    "retry": operations.retry,
    "run_now": operations.run_now,
    "cancel": operations.cancel,
    "snooze": operations.snooze,
    "move": operations.move,
    "delete": operations.delete,
}
_DONE = {
    "retry": "Retried",
    "run_now": "Made due",
    "cancel": "Cancelled",
    "snooze": "Snoozed",
    "move": "Moved",
    "delete": "Deleted",
}
_DONE_ONE = {
    "retry": "The job is due now.",
    "run_now": "The job is due now.",
    "cancel": "The job is cancelled, or asked to stop if it runs.",
    "snooze": "The job starts later.",
    "move": "The job is moved.",
}
_ASKED = {
    "quiet": "The worker is asked to be quiet: it finishes what it has, and claims no more.",
    "stop": "The worker is asked to stop: it finishes what it has, and ends.",
    "resume": "The worker is asked to go on.",
}


def job_retry(id: int) -> Response:
    """Retry one job."""
    return _one(id, "retry")


def job_run_now(id: int) -> Response:
    """Make one job due that waits for a retry or for its time."""
    return _one(id, "run_now")


def job_cancel(id: int) -> Response:
    """Cancel one job, or ask it to stop."""
    return _one(id, "cancel")


def job_snooze(id: int) -> Response:
    """Let one job start later."""
    return _one(id, "snooze")


def job_move(id: int) -> Response:
    """Give one job another queue or priority."""
    return _one(id, "move")


def job_delete(id: int) -> Response:
    """Delete one job and its attempts."""
    return _one(id, "delete")


def jobs_change() -> Response:
    """Change the jobs that were ticked in the list."""
    page = current_page()
    action = request.form.get("action", "")
    if action not in _CHANGES:
        abort(400, f"action={action[:50]!r}: give one of {', '.join(_CHANGES)}.")
    page.require(action)
    texts = request.form.getlist("id")
    if len(texts) > _MOST:
        abort(400, f"Give at most {_MOST} jobs at once; a filter takes any number.")
    ids = [id for text in texts if (id := number("id", None, source={"id": text})) is not None]
    options = fields.options(action)
    where = {name: fields.text(name) for name in ("q", "order", "before")}
    if not ids:
        return back("jobs", "No job was ticked, and nothing changed.", **where)
    changed = _change(ids, action, options)
    said = f"{_DONE[action]}: {len(changed.done)}."
    if changed.refused:
        first = min(changed.refused)
        said += f" Refused: {len(changed.refused)} (job {first}: {changed.refused[first]})."
    return back("jobs", said, **where)


def worker_ask(id: UUID) -> Response:
    """Ask a worker to be quiet, to stop, or to go on."""
    page = current_page()
    what = request.form.get("what", "")
    if what not in _ASKED:
        abort(400, f"what={what[:50]!r}: give quiet, stop or resume.")
    page.require("worker_stop" if what == "stop" else "worker_quiet")
    asked = None if what == "resume" else what
    with page.database.write() as conn:
        changed = operations.ask_worker(
            conn, page.settings.schema, id, asked, actor=page.actor(), reason=fields.text("reason")
        )
    refused = "Nothing changed: there is no such worker any more, or it was asked that, or to stop, before."
    return back("workers", _ASKED[what] if changed else refused)


def back(endpoint: str, said: str, **where: Any) -> Response:
    """Return the way to the page `endpoint`, where `said` is read out."""
    note = current_page().forms.note(said[:500])
    # 303: the browser reads the next page with GET, and a reload sends no form again.
    return redirect(url_for(f".{endpoint}", **where, note=note), 303)


def _one(id: int, action: str) -> Response:
    changed = _change([id], action, fields.options(action))
    if not changed.done:
        return back("job", f"Nothing changed: {changed.refused[id]}.", id=id)
    if action == "delete":
        return back("jobs", f"Job {id} is deleted.")
    return back("job", _DONE_ONE[action], id=id)


def _change(ids: Sequence[int], action: str, options: dict[str, Any]) -> operations.Changed:
    page = current_page()
    change = partial(_CHANGES[action], actor=page.actor(), reason=fields.text("reason"), **options)
    with page.database.write() as conn:
        return change(conn, page.settings.schema, ids)


ROUTES = [
    Route("/jobs/<int:id>/retry", "POST", job_retry, needs="retry"),
    Route("/jobs/<int:id>/run-now", "POST", job_run_now, needs="run_now"),
    Route("/jobs/<int:id>/cancel", "POST", job_cancel, needs="cancel"),
    Route("/jobs/<int:id>/snooze", "POST", job_snooze, needs="snooze"),
    Route("/jobs/<int:id>/move", "POST", job_move, needs="move"),
    Route("/jobs/<int:id>/delete", "POST", job_delete, needs="delete"),
    # The action's own permission as well.
    Route("/jobs/change", "POST", jobs_change, needs="bulk"),
    # Stopping asks for more.
    Route("/workers/<uuid:id>/ask", "POST", worker_ask, needs="worker_quiet"),
]
