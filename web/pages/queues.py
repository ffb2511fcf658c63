"""Queues: all of them, and one."""

from __future__ import annotations

from jobq import queries
from jobq.filters import JobFilter
from jobq.web.context import current_page
from jobq.web.routes import Route


def queues() -> str:
    """Every queue, with pause and resume."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.queues, default=[])
        now = reader.now()
    return page.render("queues.html", queues=found, now=now, sparks={}, queue_q=queue_q)


def queue_q(name: str, state: str | None = None) -> str:
    """Return the filter of a queue's jobs, as text."""
    return str(JobFilter(queue=name, states=() if state is None else (state,)))


ROUTES = [Route("/queues", "GET", queues, needs="view")]
