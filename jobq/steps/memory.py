"""Steps in memory: for tests without a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from jobq.steps.log import FINAL
from jobq.steps.store import (
    Holder,
    LoadSteps,
    NewStep,
    RestartJob,
    RunAgain,
    SetStepsAside,
    StepKey,
    StepRequest,
    StoredStep,
    TakeSignal,
)


@dataclass
class MemorySteps:
    """A `StepStore` without a database, for one thread at a time."""

    steps: dict[int, dict[StepKey, StoredStep]] = field(default_factory=dict)
    """The steps of each job."""
    signals: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    """The name and the payload as JSON text of each signal that is not taken yet, by job."""
    restarted: dict[int, str] = field(default_factory=dict)
    """The arguments with which jobs begin again, as JSON text."""
    ahead: float = 0.0
    """Seconds that have passed: see `now`."""
    retry_at_once: bool = False
    """Whether a step that has failed is tried again at once, and not after its backoff."""
    _sent: int = 0
    _wakes: dict[tuple[int, StepKey], float] = field(default_factory=dict)

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Carry out `request` at once."""
        reply: Future[Any] = Future()
        try:
            reply.set_result(self._perform(holder.job_id, request))
        except BaseException as error:
            reply.set_exception(error)
        return reply

    def now(self) -> float:
        """Return the time, in seconds. It stands still, so that tests do the same each time."""
        return self.ahead

    def send(self, job: int, name: str, payload: str) -> int:
        """Keep a signal until it is taken, and return its number. `payload`: JSON text."""
        self.signals.setdefault(job, []).append((name, payload))
        self._sent += 1
        return self._sent

    def open_steps(self, job: int) -> list[StoredStep]:
        """Return the steps of a job that wait."""
        return [self._now(job, step) for step in self.steps.get(job, {}).values() if step.state not in FINAL]

    def come(self, job: int, is_over: Callable[[int], bool]) -> list[StoredStep]:
        """Return those of them that need not wait any more. `is_over` tells of a child, by its id."""
        names = {name for name, _ in self.signals.get(job, [])}
        return [
            step
            for step in self.open_steps(job)
            if (step.seconds_left is not None and step.seconds_left <= 0)
            or (step.key.kind == "signal" and step.key.name in names)
            or (step.child_id is not None and is_over(step.child_id))
        ]

    def _perform(self, job: int, request: StepRequest) -> Any:
        kept = self.steps.setdefault(job, {})
        if isinstance(request, LoadSteps):
            return [self._now(job, step) for step in kept.values()]
        if isinstance(request, (SetStepsAside, RestartJob)):
            kept.clear()
            if isinstance(request, RestartJob):
                self.restarted[job] = request.args
            return None
        if isinstance(request, RunAgain):
            if request.at_once:
                for key in request.keys:
                    kept.pop(key, None)
            return None
        if not isinstance(request, TakeSignal):
            for new in request.steps:
                self._write(job, new)
            return None
        return self._take(job, kept, request)

    def _take(self, job: int, kept: dict[StepKey, StoredStep], request: TakeSignal) -> StoredStep:
        found = kept.get(request.key)
        if found is not None and found.state != "waiting":
            return found
        waiting = self.signals.get(job, [])
        payload = next((text for name, text in waiting if name == request.key.name), None)
        if payload is not None:
            waiting.remove((request.key.name, payload))
        elif found is None:
            self._write(job, NewStep(key=request.key, place=request.place, state="waiting", wake_in=request.timeout))
            if request.timeout is None or request.timeout > 0:
                return self._now(job, kept[request.key])
        is_late = (
            (self._now(job, kept[request.key]).seconds_left or 0.0) <= 0.0 if request.timeout is not None else False
        )
        if payload is None and not is_late:
            return self._now(job, kept[request.key])
        state = "timed_out" if payload is None else "done"
        self._write(job, NewStep(key=request.key, place=request.place, state=state, result=payload))
        return kept[request.key]

    def _write(self, job: int, new: NewStep) -> None:
        kept = self.steps.setdefault(job, {})
        if (former := kept.get(new.key)) is not None and former.state not in ("waiting", "retrying"):
            return
        kept[new.key] = StoredStep(
            key=new.key,
            place=new.place,
            state=new.state,
            args=new.args,
            result=new.result,
            error=None if new.error is None else json.loads(new.error),
            child_id=new.child_id,
            tries=new.tries,
            undo=new.undo or (None if former is None else former.undo),
        )
        if new.wake_in is not None:
            at_once = self.retry_at_once and new.state == "retrying"
            self._wakes[job, new.key] = self.now() + (0.0 if at_once else new.wake_in)

    def _now(self, job: int, step: StoredStep) -> StoredStep:
        at = self._wakes.get((job, step.key))
        left = None if at is None or step.state not in ("waiting", "retrying") else at - self.now()
        return StoredStep(
            key=step.key,
            place=step.place,
            state=step.state,
            args=step.args,
            result=step.result,
            error=step.error,
            child_id=step.child_id,
            tries=step.tries,
            seconds_left=left,
            undo=step.undo,
        )
