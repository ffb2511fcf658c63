"""The forms: retry, cancel, pause, resume. Each goes back to where it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from jobq import operations
from jobq.web.context import current_page, filters, number
from jobq.web.routes import Route

_MOST = 500
_VERBS = {"retry": "Retried", "cancel": "Cancelled"}


def job_retry(id: int) -> Response:
    """Retry one job."""
    return _one(id, "retry", operations.retry)


def job_cancel(id: int) -> Response:
    """Cancel one job, or ask it to stop."""
    return _one(id, "cancel", operations.cancel)


def jobs_change() -> Response:
    """Retry or cancel the jobs that were ticked in the list."""
    page = current_page()
    action = request.form.get("action", "")
    if action not in _VERBS:
        abort(400, "action: give retry or cancel.")
    page.require(action)
    texts = request.form.getlist("id")
    if len(texts) > _MOST:
        abort(400, f"Give at most {_MOST} jobs at once; “jobq jobs {action}” takes any number.")
    ids = [id for text in texts if (id := number("id", None, source={"id": text})) is not None]
    change = operations.retry if action == "retry" else operations.cancel
    back = filters(request.form) | {"before": number("before", None, source=request.form)}
    if not ids:
        return _back("jobs", "No job was ticked, and nothing changed.", **back)
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, ids, actor=page.actor().name, reason=_reason())
    said = f"{_VERBS[action]}: {len(changed.done)}."
    if changed.refused:
        first = min(changed.refused)
        said += f" Refused: {len(changed.refused)} (job {first}: {changed.refused[first]})."
    return _back("jobs", said, **back)


def queue_pause() -> Response:
    """Pause a queue."""
    return _set_pause("pause", "is paused", "was paused already")


def queue_resume() -> Response:
    """Let a queue go on."""
    return _set_pause("resume", "goes on", "was not paused")


def _one(id: int, action: str, change: Callable[..., operations.Changed]) -> Response:
    page = current_page()
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, [id], actor=page.actor().name, reason=_reason())
    if changed.done:
        said = "The job is due now." if action == "retry" else "The job is cancelled, or asked to stop if it runs."
    else:
        said = f"Nothing changed: {changed.refused[id]}."
    return _back("job", said, id=id)


def _set_pause(action: str, done: str, not_done: str) -> Response:
    page = current_page()
    queue = request.form.get("queue", "")
    change = operations.pause if action == "pause" else operations.resume
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, queue, actor=page.actor().name, reason=_reason())
    return _back("queues", f"Queue {queue} {done if changed else not_done}.")


def _reason() -> str | None:
    return request.form.get("reason", "").strip()[:1000] or None


def _back(endpoint: str, said: str, **where: Any) -> Response:
    note = current_page().forms.note(said[:500])
    # 303: the browser reads the next page with GET, and a reload sends no form again.
    return redirect(url_for(f".{endpoint}", **where, note=note), 303)


ROUTES = [
    Route("/jobs/<int:id>/retry", "POST", job_retry, needs="retry"),
    Route("/jobs/<int:id>/cancel", "POST", job_cancel, needs="cancel"),
    Route("/jobs/change", "POST", jobs_change, needs="bulk"),
    Route("/queues/pause", "POST", queue_pause, needs="pause"),
    Route("/queues/resume", "POST", queue_resume, needs="pause"),
]
