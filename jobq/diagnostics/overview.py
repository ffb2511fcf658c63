"""What an operator should look at, in sentences, the worst first."""

from __future__ import annotations

from dataclasses import dataclass

from jobq.queries import Overview
from jobq.web import show

_LATE_SECONDS = 60.0
# So many queues are told of one by one.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong: ``bad`` needs somebody now, ``warn`` wants to be known; `page` and `filters` lead to
    it.
    """

    level: str
    text: str
    page: str | None = None
    filters: dict[str, str] | None = None


def revision_problem(found: str | None, needed: str) -> list[Problem]:
    """Return that the schema is another one than this jobq needs, where it is."""
    if found == needed:
        return []
    text = (
        f"The schema is at revision {found or 'none'}, this jobq needs {needed}: "
        "run “jobq migrate”, or upgrade the older side."
    )
    return [Problem(level="bad", text=text)]


def problems(seen: Overview, head: str) -> list[Problem]:
    """Return what is wrong with what was seen; `head` is the revision that this jobq needs."""
    found = revision_problem(seen.revision, head)
    ready = seen.counts["ready"]
    if not seen.workers_alive and (ready or seen.counts["scheduled"] or seen.counts["running"]):
        waiting = f"{show.count(ready)} jobs are ready" if ready else "jobs are waiting for their time"
        text = f"No worker is alive, and {waiting}: start one with “jobq worker”."
        found.append(Problem(level="bad", text=text, page="workers"))
    silent = len(seen.workers) - seen.workers_alive
    if silent:
        who = "One worker has" if silent == 1 else f"{silent} workers have"
        found.append(
            Problem(level="warn", text=f"{who} not been heard of for longer than a lease lasts.", page="workers")
        )
    alive = [worker for worker in seen.workers if worker.health != "silent"]
    if quiet := sum(worker.state == "quiet" for worker in alive):
        who = "One worker is" if quiet == 1 else f"{quiet} workers are"
        rest = "; no other is alive, so no job starts" if quiet == len(alive) else ""
        found.append(
            Problem(
                level="bad" if rest and ready else "warn",
                text=f"{who} quiet, as asked, and claim{'s' if quiet == 1 else ''} nothing{rest}.",
                page="workers",
            )
        )
    found += _queues(seen)
    if parked := seen.counts["parked"]:
        text = (
            f"{show.count(parked)} {'job waits' if parked == 1 else 'jobs wait'} for a worker whose code knows "
            f"{'its' if parked == 1 else 'their'} task and parameters."
        )
        found.append(Problem(level="warn", text=text, page="jobs", filters={"state": "parked"}))
    if failed := seen.counts["failed"]:
        text = f"{show.count(failed)} {'job has' if failed == 1 else 'jobs have'} failed for good."
        found.append(Problem(level="warn", text=text, page="failures"))
    found.sort(key=lambda problem: problem.level != "bad")
    return found


def _queues(seen: Overview) -> list[Problem]:
    paused = [queue for queue in seen.queues if queue.paused_at is not None]
    late = [
        queue
        for queue in seen.queues
        if queue.paused_at is None
        and queue.oldest_ready_seconds is not None
        and queue.oldest_ready_seconds >= _LATE_SECONDS
    ]
    late.sort(key=lambda queue: -(queue.oldest_ready_seconds or 0.0))
    found: list[Problem] = []
    for queue in late[:_NAMED]:
        text = f"Queue {queue.name} is late: its oldest ready job has waited for {show.duration(queue.oldest_ready_seconds)}."
        where = {"state": "ready", "queue": queue.name}
        found.append(Problem(level="warn", text=text, page="jobs", filters=where))
    if len(late) > _NAMED:
        found.append(Problem(level="warn", text=f"{len(late) - _NAMED} more queues are late.", page="queues"))
    for queue in paused[:_NAMED]:
        why = f": {queue.pause_reason}" if queue.pause_reason else ""
        found.append(
            Problem(level="warn", text=f"Queue {queue.name} is paused by {queue.paused_by}{why}.", page="queues")
        )
    if len(paused) > _NAMED:
        found.append(Problem(level="warn", text=f"{len(paused) - _NAMED} more queues are paused.", page="queues"))
    return found
