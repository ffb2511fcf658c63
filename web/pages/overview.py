"""The whole at a glance."""

from __future__ import annotations

from jobq import queries
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.health import problems
from jobq.web.pages import plots
from jobq.web.routes import Route

_GROUPS = 6


def overview() -> str:
    """How things are in a sentence, in numbers and over time; what fails, and where to look."""
    page = current_page()
    hours = plots.hours()
    with page.database.read() as reader:
        seen = reader(queries.overview, lists=False)
        series = reader(queries.series, hours=hours, name="charts")
        sparks = reader(queries.sparklines, default={})
        # The same reading as the page of failures has: a group's number must not differ between the two.
        failures = reader(queries.failures, known=page.failures, limit=_GROUPS)
        now = reader.now()
    if seen is None:
        return page.render("partial.html", title="Overview", now=now)
    return page.render(
        "overview.html",
        seen=seen,
        now=now,
        problems=problems(seen, page.head),
        series=plots.plot(series),
        hours=hours,
        sparks=sparks,
        failures=failures,
        line=charts.spark,
    )


ROUTES = [Route("/", "GET", overview, needs="view")]
