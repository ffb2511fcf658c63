"""What an operator should look at, in sentences, the worst first."""

from __future__ import annotations

from dataclasses import dataclass

from jobq.queries import Overview
from jobq.web import show

_LATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong: ``bad`` needs somebody now, ``warn`` wants to be known; `page` and `filters` lead to
    it.
    """

    level: str
    text: str
    page: str | None = None
    filters: dict[str, str] | None = None


def problems(seen: Overview, head: str) -> list[Problem]:
    """Return what is wrong with what was seen; `head` is the revision that this jobq needs."""
    found: list[Problem] = []
    if seen.revision != head:
        found.append(
            Problem(
                level="bad",
                text=f"The schema is at revision {seen.revision or 'none'}, this jobq needs {head}: "
                "run “jobq migrate”, or upgrade the older side.",
            )
        )
    ready = seen.counts["ready"]
    if not seen.workers_alive and (ready or seen.counts["scheduled"] or seen.counts["running"]):
        waiting = f"{show.count(ready)} jobs are ready" if ready else "jobs are waiting for their time"
        text = f"No worker is alive, and {waiting}: start one with “jobq worker”."
        found.append(Problem(level="bad", text=text, page="workers"))
    silent = len(seen.workers) - seen.workers_alive
    if silent:
        who = "One worker has" if silent == 1 else f"{silent} workers have"
        found.append(Problem(level="warn", text=f"{who} not been heard of for 30 s or more.", page="workers"))
    for queue in seen.queues:
        age = queue.oldest_ready_seconds
        if queue.paused_at is not None:
            why = f": {queue.pause_reason}" if queue.pause_reason else ""
            text = f"Queue {queue.name} is paused by {queue.paused_by}{why}."
            found.append(Problem(level="warn", text=text, page="queues"))
        elif age is not None and age >= _LATE_SECONDS:
            text = f"Queue {queue.name} is late: its oldest ready job has waited for {show.duration(age)}."
            found.append(Problem(level="warn", text=text, page="jobs", filters={"state": "ready", "queue": queue.name}))
    if failed := seen.counts["failed"]:
        text = f"{show.count(failed)} {'job has' if failed == 1 else 'jobs have'} failed for good."
        found.append(Problem(level="warn", text=text, page="jobs", filters={"state": "failed"}))
    found.sort(key=lambda problem: problem.level != "bad")
    return found
