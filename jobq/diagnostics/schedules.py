"""Schedules: those that do not tick, and those that no worker serves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from jobq._core.durations import format_duration
from jobq._core.text import be, listed, name, one_line, plural
from jobq.diagnostics.finding import Check, Finding, Status
from jobq.diagnostics.snapshot import Snapshot
from jobq.queries import ScheduleInfo
from jobq.queries.schedules import LATE


def _schedules(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for schedules that cannot tick, are ignored or undeclared, or have an unknown task."""
    found, alive = snapshot.schedules, snapshot.alive
    known = {task for worker in alive for task in worker.tasks}
    broken: dict[str, list[ScheduleInfo]] = defaultdict(list)
    for info in found:
        if info.status == "broken":
            broken[one_line(info.last_error, 160)].append(info)
    for error, alike in broken.items():
        which = f"schedule {name(alike[0].name)}" if len(alike) == 1 else f"{len(alike):,} schedules"
        some = "" if len(alike) == 1 else f": {_some(alike)}"
        yield _finding(
            Status.FAIL,
            f"{which} cannot tick: {error}{some}",
            "correct its row, or `jobq schedules remove` it and add it again",
        )
    # Without a live worker no schedule ticks and none is declared: `workers` reports that.
    overdue = [info for info in found if info.overdue_seconds > LATE and info.status != "broken"]
    if alive and overdue:
        longest = max(info.overdue_seconds for info in overdue)
        yield _finding(
            Status.FAIL,
            f"{plural(len(overdue), 'schedule')} {be(len(overdue))} due for more than a minute: {_some(overdue)} "
            f"(up to {format_duration(longest)}); live workers do not tick {'it' if len(overdue) == 1 else 'them'}",
            "see the workers' logs and `problems`: a worker inserts the job of a tick within a second",
        )
    undeclared = [info for info in found if info.status == "undeclared" and info.overdue_seconds <= LATE]
    if alive and undeclared:
        yield _finding(
            Status.WARN,
            f"{plural(len(undeclared), 'schedule')} {be(len(undeclared))} declared by no live worker: {_some(undeclared)}",
            "start a worker of its application, or remove it from the code and restart the workers",
        )
    if withdrawn := [info for info in found if info.status == "withdrawn"]:
        yield _finding(
            Status.WARN,
            f"{plural(len(withdrawn), 'schedule')} {be(len(withdrawn))} no longer in the code: {_some(withdrawn)}",
            "`jobq schedules remove` what is not to come back",
        )
    lost = [info for info in found if info.status == "ticking" and info.task not in known]
    if alive and lost:
        yield _finding(
            Status.WARN,
            f"no live worker knows the task of {plural(len(lost), 'schedule')}: {_some(lost)}",
            "start a worker that has it, or correct the task's name",
        )


def _finding(status: Status, message: str, fix: str) -> Finding:
    return Finding(check="schedules", status=status, message=message, fix=fix, page="schedules")


def _some(found: list[ScheduleInfo]) -> str:
    return listed([name(info.name) for info in found])


SCHEDULE_CHECKS: dict[str, tuple[Check, str]] = {"schedules": (_schedules, "all that are not paused tick")}
"""Each check by name, with the text if it finds nothing."""
