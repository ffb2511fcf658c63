"""Metrics of the whole database in Prometheus text format, for `jobq metrics` and `jobq web`.

A worker's own `/metrics` describes that worker. These describe all queues, and exist without a
worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from jobq.diagnostics.checks import examine_snapshot
from jobq.diagnostics.finding import Finding, Status
from jobq.diagnostics.snapshot import Snapshot
from jobq.job import QUEUE_STATES
from jobq.queries import QueueInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Most queues with their own metrics: those with the oldest due jobs. The others are `(other)`.
MAX_QUEUES = 200

Sample = tuple[Mapping[str, str], float]


def render(connection: psycopg.Connection[Any], schema: str) -> str:
    """Return all metrics, each line ended. The cost is that of the overview.

    Counts stop at 10,000 a queue, or sooner. Raises psycopg.Error if the connection is lost. If the
    schema cannot be used, only the findings are returned.
    """
    snapshot = Snapshot(connection, schema, thorough=False)
    findings = list(examine_snapshot(snapshot))
    lines = list(_findings(findings))
    if all(finding.status is Status.OK for finding in findings if finding.check == "schema"):
        try:
            with connection.transaction():
                lines += _numbers(snapshot)
        except (psycopg.ProgrammingError, psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            # The findings report what is missing, or that the database is slow.
            pass
    return "\n".join(lines) + "\n"


def _findings(findings: Iterable[Finding]) -> Iterable[str]:
    levels = (Status.WARN, Status.FAIL)
    numbers = Counter((finding.check, finding.status) for finding in findings)
    checks = sorted({check for check, _ in numbers})
    yield from _family(
        "jobq_findings",
        "Findings of jobq's checks, as `jobq doctor` has them, by check and status.",
        [({"check": check, "status": level}, numbers[check, level]) for check in checks for level in levels],
    )


def _numbers(snapshot: Snapshot) -> list[str]:
    every = sorted(snapshot.queues, key=lambda queue: (-(queue.oldest_ready_seconds or 0.0), -queue.due, queue.name))
    apart, rest = every[:MAX_QUEUES], every[MAX_QUEUES:]
    named: list[tuple[str, list[QueueInfo]]] = [(queue.name, [queue]) for queue in apart]
    if rest:
        named.append(("(other)", rest))
    failing = snapshot.failing
    workers = Counter((worker.health, worker.state) for worker in snapshot.workers)
    unserved = [queue for queue in every if queue.paused_at is None and not snapshot.claiming(queue.name)]
    lines: list[str] = []
    for name, text, samples in (
        (
            "jobq_queue_due",
            "Due jobs of a queue: ready, waiting for their group's turn, or parked.",
            [({"queue": name}, sum(queue.due for queue in some)) for name, some in named],
        ),
        (
            "jobq_queue_oldest_due_seconds",
            "For how long the oldest of them has been due; 0 if none is.",
            [({"queue": name}, max(queue.oldest_ready_seconds or 0.0 for queue in some)) for name, some in named],
        ),
        (
            "jobq_queue_jobs",
            "Jobs of a queue by state; failed ones among the newest 10,000.",
            [
                ({"queue": name, "state": state}, sum(getattr(queue, state) for queue in some))
                for name, some in named
                for state in QUEUE_STATES
            ],
        ),
        (
            "jobq_queue_paused",
            "Whether the queue is paused; of (other), how many are.",
            [({"queue": name}, sum(queue.paused_at is not None for queue in some)) for name, some in named],
        ),
        (
            "jobq_queue_claiming_workers",
            "Live workers that claim jobs of the queue.",
            [({"queue": name}, min(len(snapshot.claiming(queue.name)) for queue in some)) for name, some in named],
        ),
        ("jobq_due", "Due jobs of all queues.", [({}, sum(queue.due for queue in every))]),
        (
            "jobq_oldest_due_seconds",
            "For how long the oldest due job has been due; 0 if none is. Paused queues included.",
            [({}, max((queue.oldest_ready_seconds or 0.0 for queue in every), default=0.0))],
        ),
        (
            "jobq_unserved_jobs",
            "Due jobs of queues that are not paused and whose jobs no live worker claims.",
            [({}, sum(queue.due for queue in unserved))],
        ),
        (
            "jobq_workers",
            "Workers by health and state.",
            [({"health": health, "state": state}, number) for (health, state), number in sorted(workers.items())]
            or [({"health": "alive", "state": "running"}, 0)],
        ),
        (
            "jobq_worker_slots",
            "Slots of the live workers, and how many of them are taken.",
            [
                ({"kind": "all"}, sum(worker.slots for worker in snapshot.alive)),
                ({"kind": "taken"}, sum(worker.running for worker in snapshot.alive)),
            ],
        ),
        ("jobq_failed", "Jobs that failed permanently and were not run again, up to 10,001.", [({}, failing.number)]),
        ("jobq_failed_24h", "Those of them that failed within 24 hours.", [({}, failing.recent)]),
    ):
        lines += _family(name, text, samples)
    return lines


def _family(name: str, text: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {value:g}" if labels else f"{name} {value:g}")
    return lines


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read(connection: psycopg.Connection[Any], schema: str) -> str:
    """Return `render` at one moment: in a read-only transaction whose statements end after 2 s."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SET LOCAL statement_timeout = '2s'")
        connection.execute("SET LOCAL jit = off")
        return render(connection, schema)
