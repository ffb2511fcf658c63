"""What is stored of a durable job's steps, and the interface of the place where it is stored."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class StepKey(NamedTuple):
    """What identifies a step of one job."""

    kind: str
    name: str
    args_hash: str
    number: int
    """From 0: its number among steps that are equal in the other three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A step as it is stored."""

    key: StepKey
    place: int
    state: str
    args: str | None = None
    result: str | None = None
    """JSON text."""
    error: dict[str, Any] | None = None
    child_id: int | None = None
    tries: int = 1
    seconds_left: float | None = None
    """Seconds from now until it goes on; None: it does not wait for a time."""
    undo: str | None = None
    """The name of the function that undoes it."""
    is_cancelling: bool = False
    """Whether the job is being cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStep:
    """A step to be stored, in place of its former state."""

    key: StepKey
    place: int
    state: str
    seconds: float = 0.0
    """How long it has taken."""
    args: str | None = None
    result: str | None = None
    error: str | None = None
    """JSON text, as `result`."""
    child_id: int | None = None
    tries: int = 1
    wake_in: float | None = None
    """Seconds after which it goes on."""
    undo: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """The execution that holds a job: only it may write steps."""

    job_id: int
    claims: int
    worker: Any
    started: int
    attempt: int


@dataclass(frozen=True, slots=True)
class LoadSteps:
    """Request: the stored steps of the job. The reply is a list of StoredStep."""


@dataclass(frozen=True, slots=True)
class WriteSteps:
    """Request: store steps. The reply is None. Raises ExecutionLost."""

    steps: list[NewStep]


@dataclass(frozen=True, slots=True)
class TakeSignal:
    """Request: take the oldest signal of a name, or wait for it. The reply is the StoredStep. Raises ExecutionLost."""

    key: StepKey
    place: int
    timeout: float | None
    """Seconds from the first request for this step; None: no limit."""


@dataclass(frozen=True, slots=True)
class SetStepsAside:
    """Request: all steps of the job have been undone. The reply is None. Raises ExecutionLost."""


@dataclass(frozen=True, slots=True)
class RestartJob:
    """Request: forget the steps, and give the job other arguments (JSON text). The reply is None. Raises ExecutionLost."""

    args: str


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Request: these steps have failed and have ended the execution: they are to run again. The reply is None.

    Other failures were caught by the task: what it did then depends on them, so they are kept.
    """

    keys: list[StepKey]
    at_once: bool
    """Whether the job's next attempt runs them again; else an operator's retry of the job does."""


StepRequest = LoadSteps | WriteSteps | TakeSignal | SetStepsAside | RestartJob | RunAgain


class StepStore(Protocol):
    """Where steps are stored. Any thread may call it."""

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Carry out `request`, at once or in another thread. The future has the reply or the error."""
