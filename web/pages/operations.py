"""Bulk operations: the list, and one of them from its preview to its last batch."""

from __future__ import annotations

from jobq import queries
from jobq.errors import InvalidFilter
from jobq.web.context import current_page, number
from jobq.web.routes import Route

_PAGE = 50
_SAMPLE = 20


def operations() -> str:
    """Bulk operations, newest first."""
    page = current_page()
    before = number("before", None)
    with page.database.read() as reader:
        found = reader(queries.operations, limit=_PAGE + 1, before_id=before, default=[])
        now = reader.now()
    if any(entry.state == "running" for entry in found):
        # Begun by the command line, or by a process that has ended since.
        page.executor.wake()
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render("operations.html", operations=found[:_PAGE], before=before, more=more, now=now)


def operation(id: int) -> str:
    """One bulk operation: what it would do, is doing, or did."""
    page = current_page()
    after = number("after", None) or 0
    with page.database.read() as reader:
        found = reader(queries.operation, id, name="operation")
        sample = None
        if found is not None and found.state == "draft" and not found.is_stale:
            try:
                sample = reader(queries.search_jobs, found.jobs, limit=_SAMPLE, name="sample")
            except InvalidFilter:
                # Another version wrote a filter that this one cannot read; the page shows its text.
                sample = None
        batches = reader(queries.operation_batches, id, after=after, default=[])
        now = reader.now()
    if found is None:
        return page.render("partial.html", title=f"Operation {id}", now=now)
    if found.state == "running":
        page.executor.wake()
    return page.render(
        "operation.html", it=found, sample=sample.rows if sample else [], batches=batches, after=after, now=now
    )


ROUTES = [
    Route("/operations", "GET", operations, needs="view"),
    Route("/operations/<int:id>", "GET", operation, needs="view"),
]
