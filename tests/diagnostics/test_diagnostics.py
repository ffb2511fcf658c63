"""Checks that only compare facts, their words, and the text of metrics: no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobq._core import text
from jobq.diagnostics import Finding, Snapshot, Status, metrics
from jobq.diagnostics.overview import problems
from jobq.diagnostics.queues import QUEUE_CHECKS
from jobq.diagnostics.workers import WORKER_CHECKS
from jobq.limits import QueueSettings
from jobq.queries import DueTask, Failing, QueueInfo, WorkerInfo


def queue(name: str = "mail", **facts: Any) -> QueueInfo:
    given = {
        "ready": 0, "scheduled": 0, "running": 0, "failed": 0, "oldest_ready_seconds": None, "paused_at": None,
        "paused_by": None, "pause_reason": None,
    }  # fmt: skip
    return QueueInfo(name=name, **{**given, **facts})


def late(name: str = "mail", **facts: Any) -> QueueInfo:
    """A queue with a job that has been due for three hours."""
    return queue(
        name, **{"ready": 1, "due": 1, "oldest_ready_seconds": 10_800.0, "oldest_unheld_seconds": 10_800.0, **facts}
    )


def worker(**facts: Any) -> WorkerInfo:
    now = datetime.now(UTC)
    given = {
        "id": uuid4(), "host": "box", "pid": 1, "version": "0.1.0", "app": "shop:q", "state": "running", "queues": None,
        "tasks": ["mail.send"], "slots": 16, "running": 16, "requested_state": None, "lease": 30.0,
        "rss": None, "started_at": now,
        "heartbeat_at": now, "heartbeat_seconds": 1.0,
    }  # fmt: skip
    return WorkerInfo(**{**given, **facts})


def snapshot(*queues: QueueInfo, workers: list[WorkerInfo], tasks: list[DueTask] | None = None) -> Snapshot:
    """A snapshot whose facts are known."""
    known = Snapshot(None, "jobq")  # type: ignore[arg-type]
    known.__dict__ |= {
        "queues": list(queues), "workers": workers, "due_tasks": tasks or [], "parked": [], "schedules": [],
        "maintenance_tasks": [],
        "failing": Failing(number=0, recent=0, finished_hour=0, failed_hour=0),
    }  # fmt: skip
    return known


def found(check: str, known: Snapshot) -> list[tuple[str, str]]:
    made, _ = {**QUEUE_CHECKS, **WORKER_CHECKS}[check]
    return [(finding.status.value, finding.message) for finding in made(known)]


@pytest.mark.parametrize(
    ("workers", "status", "says"),
    [
        ([worker(queues=["pdf"])], "fail", "no live worker serves queue mail (1 job due, the oldest for 3 h)"),
        (
            [worker(state="quiet"), worker(state="draining")],
            "fail",
            "every live worker that serves queue mail (1 job due, the oldest for 3 h) claims nothing: draining or quiet",
        ),
        (
            [worker(state="starting")],
            "fail",
            "every live worker that serves queue mail (1 job due, the oldest for 3 h) claims nothing: starting",
        ),
        # The one that would claim is not alive.
        ([worker(heartbeat_seconds=31.0), worker(queues=["pdf"])], "fail", "no live worker serves queue mail"),
    ],
)
def test_due_jobs_that_no_worker_claims(workers: list[WorkerInfo], status: str, says: str) -> None:
    ((level, message),) = found("queues", snapshot(late(), workers=workers))
    assert (level, says in message) == (status, True), message


def test_a_worker_that_starts_is_given_a_minute() -> None:
    due = late(oldest_ready_seconds=20.0, oldest_unheld_seconds=20.0)
    assert [status for status, _ in found("queues", snapshot(due, workers=[worker(state="starting")]))] == ["warn"]


def test_a_paused_queue_is_paused_and_nothing_else() -> None:
    paused = late(paused_at=datetime.now(UTC) - timedelta(hours=1), paused_by="ann")
    for check in ("queues", "idle", "late"):
        assert found(check, snapshot(paused, workers=[worker(queues=["pdf"])])) == []
    ((status, message),) = found("paused", snapshot(paused, workers=[]))
    assert (status, message) == ("warn", "queue mail is paused by ann, with 1 job due, the oldest for 3 h")


@pytest.mark.parametrize(
    ("facts", "slots", "check"),
    [
        ({}, 16, "late"),
        ({}, 17, "idle"),
        # Nothing says that these could start.
        ({"settings": QueueSettings(limit=2), "running": 2}, 17, "late"),
        ({"settings": QueueSettings(limit=2), "running": 1}, 17, "idle"),
        ({"oldest_unheld_seconds": None, "ready": 0, "waiting": 1}, 17, "late"),
    ],
)
def test_late_or_idle(facts: dict[str, Any], slots: int, check: str) -> None:
    known = snapshot(late(**facts), workers=[worker(slots=slots)])
    assert {name for name in ("late", "idle") if found(name, known)} == {check}


def test_jobs_that_wait_for_other_code_are_not_late() -> None:
    parked = late(ready=0, parked=1, oldest_unheld_seconds=None)
    assert found("late", snapshot(parked, workers=[worker()])) == []


def test_a_task_that_only_a_worker_of_another_queue_knows() -> None:
    tasks = [DueTask(queue="mail", task="mail.new", number=500, whole=False, oldest_seconds=60.0)]
    workers = [worker(queues=["mail"]), worker(queues=["pdf"], tasks=["mail.new"])]
    ((status, message),) = found("tasks", snapshot(late(), workers=workers, tasks=tasks))
    assert status == "fail"
    assert message == "no live worker of queue mail knows task mail.new (at least 500 jobs due, the oldest for 60 s)"


def test_counts_that_stopped_say_so() -> None:
    many = late(due=10_001)
    ((_, message),) = found("queues", snapshot(many, workers=[worker(queues=["pdf"])]))
    assert "queue mail (more than 10,000 jobs due" in message


def test_nothing_in_a_finding_can_look_like_another_line() -> None:
    finding = Finding(check="x", status=Status.FAIL, message="a\nok    schema\r\x1b[2K\u202e\u2028", fix="\tb\n")
    assert finding.message == "a\\nok    schema\\r\\x1b[2K\\u202e\\u2028"
    assert finding.fix == "\\tb\\n"


def test_the_page_shows_the_worst_first_and_no_choices() -> None:
    findings = [
        Finding(check="paused", status=Status.WARN, message="a queue is paused", fix="resume it"),
        Finding(check="connection", status=Status.WARN, message="a pooler"),
        Finding(check="server", status=Status.OK, message="fine"),
        Finding(check="objects", status=Status.FAIL, message="index x is missing", fix="make it"),
    ]
    assert [(problem.level, problem.text) for problem in problems(findings)] == [
        ("bad", "Index x is missing. Make it."),
        ("warn", "A queue is paused. Resume it."),
    ]
    assert [problem.text for problem in problems(findings, system=True)] == [
        "Index x is missing. Make it.",
        "A pooler.",
    ]


def test_lists_and_numbers() -> None:
    assert text.listed(["a", "b", "c"]) == "a, b, c"
    assert text.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert (text.plural(1, "job"), text.plural(0, "job"), text.plural(1234, "job")) == ("1 job", "0 jobs", "1,234 jobs")
    assert text.name("a" * 100) == "a" * 59 + "…"


def test_metrics_of_many_queues_with_odd_names() -> None:
    odd = 'a"b\\c\nd'
    many = [late(f"q{n}", oldest_ready_seconds=float(n)) for n in range(metrics.MAX_QUEUES + 100)]
    known = snapshot(late(odd), *many, workers=[worker(), worker(heartbeat_seconds=100.0)])
    lines = metrics._numbers(known)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    }
    assert found["jobq_queue_due", odd] == 1
    assert len([name for name in found if name[0] == "jobq_queue_due"]) == metrics.MAX_QUEUES + 1
    assert found["jobq_queue_due", "(other)"] == 101
    assert found["jobq_due",] == metrics.MAX_QUEUES + 101
    assert found["jobq_oldest_due_seconds",] == 10_800
    assert found["jobq_unserved_jobs",] == 0
    assert (found["jobq_workers", "alive", "running"], found["jobq_workers", "silent", "running"]) == (1, 1)
