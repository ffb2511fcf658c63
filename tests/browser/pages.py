"""Which pages there are: a name for pictures, and the address in a data set."""

from __future__ import annotations

from urllib.parse import quote

from tests.browser.seeds import Seeded

ALWAYS = {
    "overview": "/",
    "queues": "/queues",
    "jobs": "/jobs",
    "failures": "/failures",
    "workers": "/workers",
    "operations": "/operations",
    "audit": "/audit",
    "system": "/system",
    "not-found": "/jobs/999999999",
}


def addresses(seeded: Seeded) -> dict[str, str]:
    """Return the pages of a data set by name; those of single things where it has such things."""
    found = dict(ALWAYS)
    if seeded.jobs:
        found["queue"] = f"/queues/{quote(seeded.queue, safe='')}"
        found |= {f"job-{name}": f"/jobs/{id}" for name, id in seeded.jobs.items()}
    if seeded.operation:
        found["operation"] = f"/operations/{seeded.operation}"
    return found
