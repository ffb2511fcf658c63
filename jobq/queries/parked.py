"""Parked jobs: why no worker's code could run a job so far, as a sentence and by task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq._core.durations import roughly
from jobq._postgres.statements import fetch
from jobq.queries.values import JobDetail

# Number of parked jobs looked at.
_BOUND = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedTask:
    """Jobs of one task that the same code refused. `unknown`: that code does not have the task."""

    task: str
    unknown: bool
    number: int
    since: datetime
    seconds: float
    reason: str | None
    queues: list[str]
    may: bool
    """Whether the code of some live worker may run them."""

    @property
    def sentence(self) -> str:
        """Return who lacks what, and since when, without a full stop."""
        if self.may:
            return (
                f"live workers may know what task {self.task} needs, and have not claimed it since {moment(self.since)}"
            )
        if self.unknown:
            return f"no live worker knows task {self.task} since {moment(self.since)}"
        return f"{no_worker_takes(self.task, self.reason)} since {moment(self.since)}"


def parked_tasks(conn: Connection[Any], schema: str) -> list[ParkedTask]:
    """Return the parked jobs by task and refusal, largest first; at most 100, of 10,000 jobs."""
    return [ParkedTask(**row) for row in fetch(conn, schema, "parked_tasks", {"bound": _BOUND})]


def why_parked(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    """Return one sentence on what a parked job waits for. Its `parked_at` is not None."""
    assert job.parked_at is not None
    since = f"since {moment(job.parked_at)} ({roughly((job.read_at - job.parked_at).total_seconds())})"
    knowing = fetch(conn, schema, "parked_workers", {"task": job.task, "refused": job.parked_signature})
    able = [worker for worker in knowing if worker["may"]]
    if not able:
        if job.parked_signature is None:
            return f"No live worker knows task {job.task} {since}: it waits for one whose application has it."
        said = no_worker_takes(job.task, job.parked_reason)
        return f"{said[0].upper()}{said[1:]} {since}: it waits for other code, and fails when none has come in time."
    serving = [worker for worker in able if worker["queues"] is None or job.queue in worker["queues"]]
    if not serving:
        return f"None of the live workers that know task {job.task} serves queue {job.queue} {since}."
    if not any(worker["state"] == "running" for worker in serving):
        states = " or ".join(sorted({worker["state"] for worker in serving}))
        return f"The only live workers that may know what it needs are {states} and claim nothing."
    if job.run_at > job.read_at:
        return (
            f"It is due in {roughly((job.run_at - job.read_at).total_seconds())}, for a worker whose code can run it."
        )
    return (
        "The code of the worker that claimed it could not run it: it waits for a free slot of a worker whose code may."
    )


def no_worker_takes(task: str, reason: str | None) -> str:
    """Return the sentence for a job of `task` whose stored arguments fit no live worker's code.

    `reason` is the reason as stored.
    """
    why = (reason or "").removeprefix(f"{task}: ").removeprefix("stored arguments do not fit: ")
    parameter = why.removeprefix("there is no parameter ") if why.startswith("there is no parameter ") else None
    if parameter is not None and ";" not in parameter:
        return f"no live worker's task {task} takes parameter {parameter}"
    return f"the arguments fit no live worker's task {task}" + (f" ({why})" if why else "")


def moment(at: datetime) -> str:
    """Return `at` to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
