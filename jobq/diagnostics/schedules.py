"""What `jobq doctor` looks at to see which schedules do not tick, and which tick for nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from jobq import queries
from jobq.cli.findings import Check, Finding, Status
from jobq.cli.output import one_line, plural

# As many as it looks at, and as many as it names of a kind.
_MOST = 1000
_NAMED = 3


def schedules(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Schedules that cannot tick, that nobody looks at, that no worker declares, and whose task no live worker knows."""
    found = queries.schedules(connection, schema, limit=_MOST, preview=1)
    alive = [worker for worker in queries.workers(connection, schema) if worker.health != "silent"]
    known = {task for worker in alive for task in worker.tasks}
    for info in found:
        if info.status == "broken":
            yield Finding(
                check="schedules",
                status=Status.FAIL,
                message=f"schedule {info.name} cannot tick: {one_line(info.last_error, 160)}",
                mend="mend its row, or `jobq schedules remove` it and add it anew",
            )
    kinds = (
        (
            "late",
            Status.FAIL,
            "due for more than a minute",
            "start a worker; if some run, look for `schedules` in their logs",
        ),
        ("undeclared", Status.WARN, "declared by no live worker", "start a worker of the application that declares it"),
        ("withdrawn", Status.WARN, "no longer in the code", "`jobq schedules remove` what is not to come back"),
    )
    for status, severity, what, mend in kinds:
        if names := [info.name for info in found if info.status == status]:
            yield Finding(
                check="schedules",
                status=severity,
                message=f"{plural(len(names), 'schedule')} {'is' if len(names) == 1 else 'are'} {what}: {_some(names)}",
                mend=mend,
            )
    if alive and (lost := [info.name for info in found if info.status == "ticking" and info.task not in known]):
        yield Finding(
            check="schedules",
            status=Status.WARN,
            message=f"no live worker knows the task of {plural(len(lost), 'schedule')}: {_some(lost)}",
            mend="start a worker that has it, or correct the task's name",
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(one_line(name, 60) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


SCHEDULE_CHECKS: dict[str, tuple[Check, str]] = {"schedules": (schedules, "all that are not paused tick")}
