"""Result types of the reads of durable jobs: steps, signals, and what jobs wait for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """One step of a durable job.

    `state`: ``done``, ``failed``, ``waiting``, ``retrying`` (its function failed and is called
    again) or ``timed_out``. A step of a job that has ended may stay ``waiting``: it did not end.
    """

    place: int
    """Its place in the order in which steps began, from 1."""
    kind: str
    """``run``, ``sleep``, ``signal``, ``child``, ``since`` or ``undo``."""
    name: str
    """The function's or the signal's name, the child's task, or the name that the code gives."""
    number: int
    """From 0: its number among the job's steps with the same kind, name and arguments."""
    state: str
    args: Any
    """Its arguments by name. Of a sleep ``{"seconds": …}``; of a signal that was taken ``{"id": …, "by": …}``."""
    shortened_args: str | None
    """The beginning of arguments that are longer than 1,000 characters; then `args` is None. Of a
    step of the kind ``undo``: the name of the function that undoes."""
    result: Any
    """What it returned, or the payload of its signal. None: also if it is larger than 10 kB as stored."""
    result_bytes: int | None
    """The size of the result as stored; None: there is none."""
    error_type: str | None
    error: str | None
    """The message of its last exception, at most 2,000 characters."""
    tries: int
    """How often its function was called."""
    attempt: int
    """The job's attempt that wrote it."""
    started_at: datetime
    finished_at: datetime | None
    wake_at: datetime | None
    """When a sleep ends, a wait times out, or the next try is due."""
    child_run: int | None
    """Of a child: the workflow's run that it is."""
    child_job: int | None
    child_state: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSteps:
    """The newest steps of a durable job, oldest first. `total`: how many steps it has."""

    steps: list[StepInfo] = field(default_factory=list)
    total: int = 0

    @property
    def left_out(self) -> int:
        """Number of steps that are not listed."""
        return self.total - len(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalInfo:
    """One signal. It was sent to the job `job_id`, or to the workflow's run `workflow_id`."""

    id: int
    name: str
    job_id: int | None
    workflow_id: int | None
    payload: Any
    """None: also if it is larger than 10 kB as stored."""
    payload_bytes: int
    """The size of the payload as stored."""
    sent_at: datetime
    sent_by: str | None
    taken_at: datetime | None
    """When a step took it; None: it is unread."""
    taken_by: int | None
    """The job that took it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWait:
    """One step that a suspended job waits for. `kind` and `wake_at` are those of `StepInfo`."""

    kind: str
    name: str
    state: str
    wake_at: datetime | None
    tries: int
    error_type: str | None
    error: str | None
    child_job: int | None
    child_task: str | None
    child_state: str | None
    """The state of the child's job, or how its run has ended."""
    is_over: bool
    """Whether what it waits for has happened: a worker is about to wake the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWaits:
    """The first steps that a suspended job waits for, in their order. `total`: how many there are."""

    waits: list[JobWait] = field(default_factory=list)
    total: int = 0

    @property
    def signals(self) -> list[str]:
        """The names of the signals that are waited for and were not sent, each once."""
        return list(dict.fromkeys(wait.name for wait in self.waits if wait.kind == "signal" and not wait.is_over))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWait:
    """A job of a workflow's run that waits for a signal, which may be sent to the job or to the run."""

    name: str
    """The signal's name."""
    job_id: int
    node: str
    number: int
    item: int | None
    """The item of a map, from 0; of a task 0."""
    wake_at: datetime | None
    """When the wait times out; None: it has no limit."""
    is_over: bool
    """Whether such a signal was sent: a worker is about to wake the job."""
