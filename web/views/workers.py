"""Workers and their maintenance tasks, and the form that asks a worker to pause, stop or resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import abort, request
from werkzeug.wrappers import Response

from jobq import operations, queries
from jobq.queries import WorkerInfo
from jobq.web import forms
from jobq.web.context import current_page
from jobq.web.forms import redirect_with_note
from jobq.web.listing import PAGE_SIZE, list_page, list_query
from jobq.web.routes import Route

_HEALTH = ("silent", "late", "alive")
_SORTS: dict[str, Callable[[WorkerInfo], Any]] = {
    "worker": lambda worker: (worker.host, worker.pid),
    "heartbeat": lambda worker: (_HEALTH.index(worker.health), worker.heartbeat_at),
    "running": lambda worker: worker.running,
    "memory": lambda worker: worker.rss,
    "application": lambda worker: (worker.app or "", worker.version),
    "started": lambda worker: worker.started_at,
}


def workers() -> str:
    """List the workers and the maintenance tasks."""
    page = current_page()
    asked = list_query("workers", _SORTS, "worker")
    with page.database.read() as reader:
        found = reader(queries.workers, default=[])
        maintenance = reader(queries.maintenance_tasks, default=[])
        now = reader.now()
    versions = Counter(worker.version for worker in found if worker.health != "silent")
    # If several versions run, mark the least frequent one.
    odd = versions.most_common()[-1][0] if len(versions) > 1 else None
    it = list_page(asked, found, _texts, _SORTS)
    troubled = [(worker, problem) for worker in found for problem in worker.problems]
    return page.render(
        "workers.html",
        it=it,
        problems=troubled[:PAGE_SIZE],
        more_problems=len(troubled) - PAGE_SIZE,
        maintenance=maintenance,
        now=now,
        versions=sorted(versions),
        odd_version=odd,
    )


def _texts(worker: WorkerInfo) -> tuple[str, ...]:
    return (
        worker.host, str(worker.pid), worker.app or "", worker.version, worker.state, worker.health,
        worker.requested_state or "",
        *(worker.queues or ()),
    )  # fmt: skip


_REQUESTED = {
    "quiet": "The worker is asked to be quiet: it finishes its jobs and claims no more.",
    "stop": "The worker is asked to stop: it finishes its jobs and exits.",
    "resume": "The worker is asked to resume.",
}


def worker_ask(id: UUID) -> Response:
    """Ask a worker to be quiet, to stop, or to resume."""
    page = current_page()
    what = request.form.get("what", "")
    if what not in _REQUESTED:
        abort(400, f"what={what[:50]!r}: expected quiet, stop or resume.")
    page.require("worker_stop" if what == "stop" else "worker_quiet")
    asked = None if what == "resume" else what
    with page.database.write() as conn:
        changed = operations.ask_worker(
            conn, page.settings.schema, id, asked, actor=page.actor(), reason=forms.text("reason")
        )
    refused = "Nothing changed: the worker is gone, or it was already asked to do this or to stop."
    return redirect_with_note("workers", _REQUESTED[what] if changed else refused)


ROUTES = [
    Route("/workers", "GET", workers, needs="view"),
    # Stopping also needs `worker_stop`.
    Route("/workers/<uuid:id>/ask", "POST", worker_ask, needs="worker_quiet"),
]
