"""The pages that show, a module a subject. Each has its ROUTES; what changes something is in `jobq.web.actions`."""

from __future__ import annotations

from jobq.web.pages import audit, jobs, operations, overview, queues, workers

ROUTES = [
    *overview.ROUTES,
    *queues.ROUTES,
    *jobs.ROUTES,
    *workers.ROUTES,
    *operations.ROUTES,
    *audit.ROUTES,
]
