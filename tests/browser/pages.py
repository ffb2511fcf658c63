"""Which pages there are: a name for pictures, and the address in a data set."""

from __future__ import annotations

from urllib.parse import quote

from tests.browser.seeds import Name, Seeded

ALWAYS = {
    "overview": "/",
    "queues": "/queues",
    "jobs": "/jobs",
    "workflows": "/workflows",
    "failures": "/failures",
    "schedules": "/schedules",
    "workers": "/workers",
    "operations": "/operations",
    "audit": "/audit",
    "system": "/system",
    "not-found": "/jobs/999999999",
}


# The jobs worth a look in each data set.
_JOBS: dict[Name, tuple[str, ...]] = {
    "none": (),
    "little": (
        "succeeded", "failed", "cancelled", "expired", "running", "cancelling", "ready", "unserved", "paused", "scheduled",
        "retrying", "grouped", "turn", "approval", "several", "stepped",
    ),
    "lot": ("huge", "deep", "foreign", "traceback", "hostile", "running", "ready", "scheduled", "grouped", "durable"),
}  # fmt: skip

_WORKFLOWS: dict[Name, tuple[str, ...]] = {
    "none": (),
    "little": ("succeeded", "blocked", "running", "cancelled"),
    "lot": ("hostile", "parts", "flat"),
}


def names(data: Name) -> list[str]:
    """Return the names of the pages that a data set has."""
    single = (
        [
            "queue",
            "schedule",
            *(f"job-{name}" for name in _JOBS[data]),
            "operation",
            "preview",
            "failure",
            *(f"workflow-{name}" for name in _WORKFLOWS[data]),
        ]
        if _JOBS[data]
        else []
    )
    return [*ALWAYS, *single]


def addresses(seeded: Seeded) -> dict[str, str]:
    """Return where the pages of a data set are, by name."""
    found = dict(ALWAYS)
    if seeded.jobs:
        found["queue"] = f"/queue?name={quote(seeded.queue, safe='')}"
        found["schedule"] = f"/schedule?name={quote(seeded.schedule, safe='')}"
        found |= {f"job-{name}": f"/jobs/{id}" for name, id in seeded.jobs.items()}
        found["operation"] = f"/operations/{seeded.operation}"
        found["preview"] = f"/operations/{seeded.preview}"
        found["failure"] = f"/failures/{seeded.failure}"
        found |= {f"workflow-{name}": f"/workflows/{id}" for name, id in seeded.workflows.items()}
    return found
