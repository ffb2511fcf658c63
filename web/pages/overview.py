"""The whole at a glance."""

from __future__ import annotations

from jobq import queries
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.health import problems
from jobq.web.pages import plots
from jobq.web.routes import Route

# Dead letters looked at; the page of failures looks further.
_REACH = 2_000


def overview() -> str:
    """How things are in a sentence, in numbers and over time; what fails, and where to look."""
    page = current_page()
    hours = plots.hours()
    with page.database.read() as reader:
        seen = reader(queries.overview, lists=False)
        series = reader(queries.series, hours=hours, name="charts")
        sparks = reader(queries.sparklines, default={})
        # Six groups are shown; thousands of errors take longer to compare than all the rest of the page.
        failures = reader(queries.failures, reach=_REACH)
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
