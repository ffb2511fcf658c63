"""Workers, and the chores that they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from jobq import queries
from jobq.queries import WorkerInfo
from jobq.web.context import current_page
from jobq.web.listing import PAGE, listing, wanted
from jobq.web.routes import Route

_HEALTH = ("silent", "late", "alive")
_SORTS: dict[str, Callable[[WorkerInfo], Any]] = {
    "worker": lambda worker: (worker.host, worker.pid),
    "heartbeat": lambda worker: (_HEALTH.index(worker.health), worker.heartbeat_at),
    "running": lambda worker: worker.running,
    "memory": lambda worker: worker.rss,
    "application": lambda worker: (worker.app or "", worker.version),
    "started": lambda worker: worker.started_at,
}


def workers() -> str:
    """Workers and the maintenance chores."""
    page = current_page()
    asked = wanted("workers", _SORTS, "worker")
    with page.database.read() as reader:
        found = reader(queries.workers, default=[])
        chores = reader(queries.chores, default=[])
        now = reader.now()
    versions = Counter(worker.version for worker in found if worker.health != "silent")
    # Of several versions the one that fewest run stands out.
    odd = versions.most_common()[-1][0] if len(versions) > 1 else None
    it = listing(asked, found, _texts, _SORTS)
    troubled = [(worker, problem) for worker in found for problem in worker.problems]
    return page.render(
        "workers.html",
        it=it,
        problems=troubled[:PAGE],
        more_problems=len(troubled) - PAGE,
        chores=chores,
        now=now,
        versions=sorted(versions),
        odd_version=odd,
    )


def _texts(worker: WorkerInfo) -> tuple[str, ...]:
    return (
        worker.host, str(worker.pid), worker.app or "", worker.version, worker.state, worker.health, worker.asked or "",
        *(worker.queues or ()),
    )  # fmt: skip


ROUTES = [Route("/workers", "GET", workers, needs="view")]
