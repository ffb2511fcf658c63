"""The views, one module per subject: its pages (GET) and its forms (POST). Each module lists them
in ROUTES.
"""

from __future__ import annotations

from jobq.web.views import (
    audit,
    failures,
    jobs,
    operations,
    overview,
    plots,
    queues,
    schedules,
    signals,
    system,
    workers,
    workflows,
)

ROUTES = [
    *overview.ROUTES,
    *queues.ROUTES,
    *schedules.ROUTES,
    *workflows.ROUTES,
    *plots.ROUTES,
    *jobs.ROUTES,
    *signals.ROUTES,
    *failures.ROUTES,
    *workers.ROUTES,
    *operations.ROUTES,
    *audit.ROUTES,
    *system.ROUTES,
]
