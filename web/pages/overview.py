"""The whole at a glance."""

from __future__ import annotations

from jobq import queries
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.health import problems
from jobq.web.routes import Route


def overview() -> str:
    """The whole at a glance."""
    page = current_page()
    with page.database.read() as reader:
        seen = reader(queries.overview)
        now = reader.now()
    if seen is None:
        return page.render("partial.html", title="Overview", now=now)
    minutes = seen.throughput.minutes
    return page.render(
        "overview.html",
        seen=seen,
        now=now,
        problems=problems(seen, page.head),
        hour=charts.bars([[m.total - m.failed for m in minutes], [m.failed for m in minutes]], height=100.0),
    )


ROUTES = [Route("/", "GET", overview, needs="view")]
