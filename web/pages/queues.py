"""Queues: all of them, and one."""

from __future__ import annotations

from flask import abort

from jobq import queries
from jobq.filters import JobFilter
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.pages import plots
from jobq.web.routes import Route


def queues() -> str:
    """Every queue, with pause and resume."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.queues, default=[])
        finished = reader(queries.sparklines, default={})
        now = reader.now()
    sparks = {name: charts.spark(values) for name, values in finished.items()}
    return page.render("queues.html", queues=found, now=now, sparks=sparks, queue_q=queue_q)


def queue(name: str) -> str:
    """One queue: what is next in line, who serves it, how long jobs wait and run."""
    page = current_page()
    if "\x00" in name:
        abort(404)
    hours = plots.hours()
    with page.database.read() as reader:
        found = reader(queries.queue, name)
        series = reader(queries.series, hours=hours, queue=name)
        now = reader.now()
    if found is None:
        return page.render("partial.html", title="Queue", now=now)
    if not found.known:
        abort(404, "No job was ever seen in a queue of this name.")
    return page.render(
        "queue.html",
        found=found,
        queue=found.info,
        series=plots.plot(series),
        hours=hours,
        now=now,
        queue_q=queue_q,
        task_q=lambda task: str(JobFilter(queue=name, task=task, states=("ready",))),
    )


def queue_q(name: str, state: str | None = None) -> str:
    """Return the filter of a queue's jobs, as text."""
    return str(JobFilter(queue=name, states=() if state is None else (state,)))


ROUTES = [
    Route("/queues", "GET", queues, needs="view"),
    # A queue's name may have slashes in it.
    Route("/queues/<path:name>", "GET", queue, needs="view"),
]
