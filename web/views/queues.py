"""Queues: all of them, and one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import abort

from jobq import diagnostics, queries
from jobq.diagnostics.overview import problems
from jobq.filters import JobFilter
from jobq.flow import QueueSettings
from jobq.queries import QueueInfo
from jobq.web import charts
from jobq.web.context import current_page, subject
from jobq.web.listing import listing, wanted
from jobq.web.pages import plots
from jobq.web.routes import Route

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
    """Every queue, with pause and resume."""
    page = current_page()
    asked = wanted("queues", _SORTS, "queue")
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

    it = listing(asked, found, lambda queue: (queue.name, status(queue)), _SORTS | {"status": status})
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
    """One queue: what is next in line, which workers serve it, how long jobs wait and run."""
    return _queue(subject())


def queue_at(name: str) -> str:
    """The same at an address that a person would type; links use the other, which takes every name as it is."""
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
        return page.render("partial.html", title="Queue", now=now)
    if not found.known:
        abort(404, "No job was ever seen in a queue of this name.")
    return page.render(
        "queue.html",
        found=found,
        queue=found.info,
        # That it is paused is said above.
        problems=problems(finding for finding in checked if finding.check != "paused"),
        series=plots.plot(series),
        hours=hours,
        now=now,
        queue_q=queue_q,
        sentences=[f"{said[0].upper()}{said[1:]}." for said in found.info.settings.sentences()],
        values=found.info.settings.fields(),
        usual=_usual(found.info.settings),
        group_q=lambda group: str(JobFilter(queue=name, group=group)),
        task_q=lambda task: str(JobFilter(queue=name, task=task, states=("ready",))),
    )


def queue_q(name: str, state: str | None = None) -> str:
    """Return the filter of a queue's jobs, as text."""
    return str(JobFilter(queue=name, states=() if state is None else (state,)))


def _brief(settings: QueueSettings) -> Iterator[str]:
    """Yield what is set, as short as it can be said."""
    if settings.limit is not None:
        yield f"at most {settings.limit:,}"
    if settings.rate is not None:
        yield str(settings.rate)
    if settings.groups is not None:
        yield f"groups {settings.groups}"
    if settings.group_rate is not None:
        yield f"{settings.group_rate} each"


def _usual(settings: QueueSettings) -> int | None:
    """Return how many of a group run at a time where nothing else is set for it."""
    if settings.groups is None:
        return None
    return 1 if settings.groups.mode == "ordered" else settings.groups.limit


ROUTES = [
    Route("/queues", "GET", queues, needs="view"),
    # Browsers make another path of a name such as `..`; in a query it stays as it is.
    Route("/queue", "GET", queue, needs="view"),
    Route("/queues/<path:name>", "GET", queue_at, needs="view"),
]
