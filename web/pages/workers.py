"""Workers, and the chores that they do."""

from __future__ import annotations

from collections import Counter

from jobq import queries
from jobq.web.context import current_page
from jobq.web.routes import Route


def workers() -> str:
    """Workers and the maintenance chores."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.workers, default=[])
        chores = reader(queries.chores, default=[])
        now = reader.now()
    versions = Counter(worker.version for worker in found if worker.health != "silent")
    # Of several versions the one that fewest run stands out.
    odd = versions.most_common()[-1][0] if len(versions) > 1 else None
    return page.render(
        "workers.html", workers=found, chores=chores, now=now, versions=sorted(versions), odd_version=odd
    )


ROUTES = [Route("/workers", "GET", workers, needs="view")]
