"""What `jobq doctor` looks at to see what the workers cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from jobq import queries
from jobq.cli.findings import Check, Finding, Status
from jobq.cli.output import one_line, plural

_NAMED = 5


def problems(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Report what live workers keep retrying: jobs that cannot be claimed or ended, schedules that cannot tick, and more."""
    for worker in queries.workers(connection, schema):
        if worker.health == "silent":
            continue
        for problem in worker.problems[:_NAMED]:
            yield Finding(
                check="problems",
                status=Status.FAIL,
                message=f"{worker.host}:{worker.pid} {one_line(describe(problem), 300)}",
                mend=_mend(problem),
            )
        if (rest := len(worker.problems) - _NAMED) > 0:
            yield Finding(
                check="problems",
                status=Status.FAIL,
                message=f"{worker.host}:{worker.pid} has {plural(rest, 'other problem')}",
                mend="see the page of workers, or `jobq workers list --json`",
            )


def _mend(problem: dict[str, Any]) -> str:
    from jobq.worker import quarantine

    if problem.get("what") == quarantine.PROBLEM:
        return (
            "look at the attempts of its failed jobs (`jobq jobs list --state failed`, `jobq jobs show`); when it has ended no "
            "runner for a minute, the task runs beside others again"
        )
    return (
        "remove what refuses it (a trigger, a constraint, a missing right, a lock): it is tried again by itself, at least "
        "every five minutes"
    )


def describe(problem: dict[str, Any]) -> str:
    """Return one problem in words."""
    named = ("what", "error", "since", "tries")
    subject = ", ".join(f"{name} {value}" for name, value in problem.items() if name not in named)
    return (
        f"cannot {problem.get('what')}{f' ({subject})' if subject else ''} since {problem.get('since')}, "
        f"tried {plural(int(problem.get('tries') or 0), 'time')}: {problem.get('error')}"
    )


WORKER_CHECKS: dict[str, tuple[Check, str]] = {"problems": (problems, "no worker reports any")}
