"""Crashes behind the steps of a durable task, for tests: does it return the same as without one?"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, NoReturn

from jobq._app.step_host import StepHost
from jobq.steps.log import StepLog, branch_order
from jobq.steps.store import (
    Holder,
    LoadSteps,
    NewStep,
    RestartJob,
    RunAgain,
    SetStepsAside,
    StepKey,
    StepRequest,
    StepStore,
    TakeSignal,
)
from jobq.steps.suspension import ExecutionLost

Signals = Iterable[tuple[str, object]]
"""The signals that a job gets when it is enqueued: their names and payloads."""

MOST_ROUNDS = 10_000
"""Most times for which a job is called again until it ends."""


@dataclass
class CrashingSteps:
    """A `StepStore` that ends the execution once, when it has stored a number of times."""

    store: StepStore
    crash_behind: int | None = None
    """How often it stores before the crash; None: there is none."""
    stored: list[StepKey] = field(default_factory=list)
    """The last step of each request that was stored."""
    _dead: tuple[int, int] | None = None
    """The job and the claim of the execution that has crashed."""

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Carry out `request`, and crash if it is time."""
        lost: Future[Any] = Future()
        if self._dead == (holder.job_id, holder.claims):
            lost.set_exception(ExecutionLost("the test has ended this execution"))
            return lost
        reply = self.store.submit(holder, request)
        if isinstance(request, (LoadSteps, RunAgain, SetStepsAside, RestartJob)) or reply.exception() is not None:
            return reply
        try:
            self.passed(holder, request.key if isinstance(request, TakeSignal) else request.steps[-1].key)
        except ExecutionLost as error:
            lost.set_exception(error)
            return lost
        return reply

    def passed(self, holder: Holder, key: StepKey) -> None:
        """Note that a step is stored. Raises ExecutionLost if the crash is here."""
        self.stored.append(key)
        if len(self.stored) == self.crash_behind:
            self._dead = (holder.job_id, holder.claims)
            raise ExecutionLost(f"the test has ended this execution behind step {key.name!r}")


class CrashingHost(StepHost):
    """Children and transactional steps, which are stored by the application: crashes behind them, too."""

    def __init__(self, app: Any, steps: CrashingSteps) -> None:
        super().__init__(app)
        self._steps = steps

    def start_child(self, log: StepLog, job: Any, step: NewStep) -> None:
        super().start_child(log, job, step)
        self._steps.passed(log.holder, step.key)

    async def start_child_async(self, log: StepLog, job: Any, step: NewStep) -> None:
        await super().start_child_async(log, job, step)
        self._steps.passed(log.holder, step.key)

    def in_transaction(self, log: StepLog, function: Any, steps: Any) -> list[NewStep]:
        rows = super().in_transaction(log, function, steps)
        self._steps.passed(log.holder, rows[-1].key)
        return rows

    async def in_transaction_async(self, log: StepLog, function: Any, steps: Any) -> list[NewStep]:
        rows = await super().in_transaction_async(log, function, steps)
        self._steps.passed(log.holder, rows[-1].key)
        return rows


@dataclass(frozen=True, slots=True)
class Played:
    """How a job has ended."""

    state: str
    result: str | None
    """JSON text."""
    error: str | None
    stored: list[StepKey]


def check_crashes(
    task: str,
    play: Callable[[int | None], Played],
    *,
    before_each: Callable[[], object] | None,
    same: Callable[[Any, Any], object] | None,
    shuffle: bool,
) -> int:
    """Play a job without a crash, then once for each step with a crash behind it. Returns the number of crashes.

    Raises AssertionError if it ends otherwise, or comes to other steps.
    """
    __tracebackhide__ = True

    def once(crash: int | None) -> Played:
        if before_each is not None:
            before_each()
        context = copy_context()
        if shuffle:
            context.run(branch_order.set, _shuffled(-1 if crash is None else crash))
        return context.run(play, crash)

    first = once(None)
    for number in range(1, len(first.stored) + 1):
        step = first.stored[number - 1]
        found = once(number)
        where = f"task {task!r}, with a crash behind step {step.name!r} ({number} of {len(first.stored)})"
        if (found.state, _alike(same, first, found)) != (first.state, True):
            raise AssertionError(
                f"{where}: {_told(found)}; without a crash: {_told(first)}. What the task does between its steps must "
                "depend on its arguments and on results of steps only: move clocks, random numbers, reads and effects "
                "into steps"
            )
        if (names := _names(found)) != (expected := _names(first)):
            other = sorted(((names - expected) + (expected - names)).elements())
            raise AssertionError(
                f"{where}: it came to other steps than without a crash: {', '.join(map(repr, other[:5]))}: which steps a "
                "task comes to, and with which arguments, must depend on its arguments and on results of steps only"
            )
    return len(first.stored)


def no_signal(task: str, names: Iterable[str]) -> NoReturn:
    """Raise AssertionError: a job waits for what does not come."""
    __tracebackhide__ = True
    waits = ", ".join(map(repr, names))
    raise AssertionError(
        f"task {task!r} waits for a signal or a child that does not come ({waits}): pass signals=[(name, payload), …]"
    )


def _alike(same: Callable[[Any, Any], object] | None, first: Played, found: Played) -> bool:
    one, other = (None if each.result is None else json.loads(each.result) for each in (first, found))
    if same is not None and None not in (first.result, found.result):
        return bool(same(one, other))
    return bool(one == other) and first.error == found.error


def _told(played: Played) -> str:
    return f"it is {played.state} with {played.result if played.error is None else played.error}"


def _names(played: Played) -> Counter[str]:
    """How many steps of each kind and name were stored: their arguments may be results, which differ from run to run."""
    return Counter(f"{kind} {name}" for kind, name, *_ in set(played.stored))


def _shuffled(seed: int) -> Callable[[int], list[int]]:
    chance = random.Random(seed)

    def order(count: int) -> list[int]:
        return chance.sample(range(count), count)

    return order
