"""Queues: the list, one queue, and the forms that pause, resume and limit a queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import abort, request
from werkzeug.wrappers import Response

from jobq import diagnostics, operations, queries
from jobq.diagnostics.overview import problems
from jobq.filters import JobFilter
from jobq.limits import QueueSettings, Rate
from jobq.queries import QueueInfo
from jobq.web import forms
from jobq.web.context import current_page, name_from_address, name_from_form
from jobq.web.forms import redirect_with_note
from jobq.web.listing import list_page, list_query
from jobq.web.rendering import charts
from jobq.web.routes import Route
from jobq.web.views import plots

_SORTS: dict[str, Callable[[QueueInfo], Any]] = {
    "queue": lambda queue: queue.name.casefold(),
    "ready": lambda queue: queue.ready,
    "scheduled": lambda queue: queue.scheduled,
    "waiting": lambda queue: queue.waiting,
    "parked": lambda queue: queue.parked,
    "running": lambda queue: queue.running,
    "failed": lambda queue: queue.failed,
    "oldest": lambda queue: queue.oldest_ready_seconds,
    "status": lambda queue: queue.paused_at is not None,
}


def queues() -> str:
    """List every queue, with pause and resume."""
    page = current_page()
    asked = list_query("queues", _SORTS, "queue")
    with page.database.read() as reader:
        found = reader(queries.queues, default=[])
        finished = reader(queries.sparklines, default={})
        fleet = diagnostics.Snapshot(reader.connection, reader.schema, tasks=False)
        unserved = {
            queue.name for queue in found if queue.due and queue.paused_at is None and not fleet.claiming(queue.name)
        }
        now = reader.now()

    def status(queue: QueueInfo) -> str:
        return "paused" if queue.paused_at else "unserved" if queue.name in unserved else "open"

    it = list_page(asked, found, lambda queue: (queue.name, status(queue)), _SORTS | {"status": status})
    sparks = {queue.name: charts.spark(finished[queue.name]) for queue in it.rows if queue.name in finished}
    return page.render(
        "queues.html",
        it=it,
        status=status,
        now=now,
        sparks=sparks,
        queue_q=queue_q,
        any_waiting=any(queue.waiting for queue in found),
        any_parked=any(queue.parked for queue in found),
        brief_set=_brief,
    )


def queue() -> str:
    """Show one queue: its next jobs, the workers that serve it, and how long jobs wait and run."""
    return _queue(name_from_address())


def queue_at(name: str) -> str:
    """Show one queue at an address that a person would type. Links use `queue`, which supports
    every name.
    """
    return _queue(name)


def _queue(name: str) -> str:
    page = current_page()
    hours = plots.hours()
    with page.database.read() as reader:
        found = reader(queries.queue, name)
        series = reader(queries.series, hours=hours, queue=name)
        checked = []
        if found is not None:
            checked = diagnostics.examine_queue(reader.connection, reader.schema, found.info)
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title="Queue", now=now)
    if not found.known:
        abort(404, "No job has ever been in a queue of this name.")
    return page.render(
        "queue.html",
        found=found,
        queue=found.info,
        # The page shows above that the queue is paused.
        problems=problems(finding for finding in checked if finding.check != "paused"),
        series=plots.plot(series),
        hours=hours,
        now=now,
        queue_q=queue_q,
        sentences=[f"{said[0].upper()}{said[1:]}." for said in found.info.settings.sentences()],
        values=found.info.settings.fields(),
        default_group_limit=_group_limit(found.info.settings),
        group_q=lambda group: str(JobFilter(queue=name, group=group)),
        task_q=lambda task: str(JobFilter(queue=name, task=task, states=("ready",))),
    )


def queue_q(name: str, state: str | None = None) -> str:
    """Return the filter of a queue's jobs, as text."""
    return str(JobFilter(queue=name, states=() if state is None else (state,)))


def _brief(settings: QueueSettings) -> Iterator[str]:
    """Yield the settings in short form."""
    if settings.limit is not None:
        yield f"at most {settings.limit:,}"
    if settings.rate is not None:
        yield str(settings.rate)
    if settings.groups is not None:
        yield f"groups {settings.groups}"
    if settings.group_rate is not None:
        yield f"{settings.group_rate} each"


def _group_limit(settings: QueueSettings) -> int | None:
    """Return the limit of a group without a limit of its own; None: no limit."""
    return None if settings.groups is None else settings.groups.limit_of(None)


def queue_pause() -> Response:
    """Pause a queue."""
    return _set_pause(operations.pause, "is paused", "was already paused")


def queue_resume() -> Response:
    """Resume a queue."""
    return _set_pause(operations.resume, "is resumed", "was not paused")


def queue_set() -> Response:
    """Set the limit, the rates and the group rule of a queue. An empty field clears its setting."""
    page = current_page()
    queue = name_from_form("queue")
    with page.database.write() as conn:
        change = operations.configure(
            conn,
            page.settings.schema,
            queue,
            actor=page.actor(),
            reason=forms.text("reason"),
            limit=forms.whole("limit"),
            rate=_rate("rate", "burst"),
            groups=forms.text("groups"),
            group_rate=_rate("group_rate", "group_burst"),
        )
    said = change.after.describe()
    return redirect_with_note("queue", said if change.changed else f"Nothing changed. {said}", name=queue)


def queue_set_group() -> Response:
    """Set or clear the limit of one group."""
    page = current_page()
    queue, group, limit = name_from_form("queue"), request.form.get("group", "").strip(), forms.whole("limit")
    with page.database.write() as conn:
        changed = operations.configure_group(
            conn, page.settings.schema, queue, group, limit=limit, actor=page.actor(), reason=forms.text("reason")
        )
    what = "no longer has its own limit" if limit is None else f"runs at most {limit:,} at a time"
    return redirect_with_note(
        "queue", f"Group {group} {what}." if changed else "Nothing changed: the limit was the same before.", name=queue
    )


def _rate(name: str, burst_name: str) -> Rate | None:
    text, burst = forms.text(name), forms.whole(burst_name)
    # If a user empties only the rate, the browser still sends the burst.
    return None if text is None else Rate.parse(text, burst=1 if burst is None else burst, name=name)


def _set_pause(change: Callable[..., bool], done: str, not_done: str) -> Response:
    page = current_page()
    queue = name_from_form("queue")
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, queue, actor=page.actor(), reason=forms.text("reason"))
    return redirect_with_note("queues", f"Queue {queue} {done if changed else not_done}.")


ROUTES = [
    Route("/queues", "GET", queues, needs="view"),
    # Browsers resolve a name such as `..` in a path, but not in a query.
    Route("/queue", "GET", queue, needs="view"),
    Route("/queues/<path:name>", "GET", queue_at, needs="view"),
    Route("/queues/pause", "POST", queue_pause, needs="pause"),
    Route("/queues/resume", "POST", queue_resume, needs="pause"),
    Route("/queues/set", "POST", queue_set, needs="configure"),
    Route("/queues/set-group", "POST", queue_set_group, needs="configure"),
]
