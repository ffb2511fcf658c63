"""An application with schedules, for tests with real workers. SCHEDULED names those that it declares: two versions of it."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from jobq import JobQ, current_job
from tests.apps.plain import trace

q = JobQ()


@q.task
def tick() -> None:
    """Leaves the tick's time, and how late the job began."""
    job = current_job()
    assert job.tick is not None
    trace(f"{job.schedule} {job.tick.isoformat()}")


@q.task
def told(scheduled_for: datetime, note: str) -> None:
    trace(f"{note} {scheduled_for.isoformat()} {current_job().tick == scheduled_for}")


for name in os.environ.get("SCHEDULED", "seconds").split(","):
    match name:
        case "seconds":
            q.schedule(every=timedelta(seconds=1), missed="all", name="seconds")(tick)
        case "told":
            q.schedule("* * * * * *", name="told", args={"note": "hello"}, tick_argument="scheduled_for")(told)
        case "nightly":
            q.schedule(os.environ.get("NIGHTLY", "30 2 * * *"), timezone="Europe/Berlin", name="nightly")(tick)
        case _:
            pass
