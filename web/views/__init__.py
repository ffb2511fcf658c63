"""The pages that show, a module a subject. Each has its ROUTES; what changes something is in `jobq.web.actions`."""

from __future__ import annotations

from jobq.web.pages import audit, failures, jobs, operations, overview, plots, queues, schedules, system, workers

ROUTES = [
    *overview.ROUTES,
    *queues.ROUTES,
    *schedules.ROUTES,
    *plots.ROUTES,
    *jobs.ROUTES,
    *failures.ROUTES,
    *workers.ROUTES,
    *operations.ROUTES,
    *audit.ROUTES,
    *system.ROUTES,
]
