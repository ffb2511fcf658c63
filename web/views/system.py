"""The database: what slows claims down, what grows, and which sessions hold back vacuum."""

from __future__ import annotations

from jobq import diagnostics, queries
from jobq.diagnostics.overview import problems
from jobq.web.context import current_page
from jobq.web.routes import Route


def system() -> str:
    """Show versions, sizes, vacuum and what holds it back, notifications, clocks, and maintenance
    tasks.
    """
    page = current_page()
    with page.database.read() as reader:
        checked = list(diagnostics.examine(reader.connection, reader.schema, thorough=False))
        found = reader(queries.system)
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title="System", now=now)
    return page.render("system.html", it=found, problems=problems(checked, system=True), now=now)


ROUTES = [Route("/system", "GET", system, needs="view")]
