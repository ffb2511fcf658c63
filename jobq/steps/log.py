"""The steps of one execution of a durable job: which are stored, and what happens at the next one.

The methods that take a step are generators: they yield requests to the store and calls of the
task's functions, and are sent the replies. `jobq.steps.api` drives them, from a thread or from an
event loop. So the rules are written once for both.

Several steps may be under way at once on an event loop. Every change of this object is made between
two yields.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from jobq.errors import Cancel, Fail, InvalidOption, NotDurable, StepChanged
from jobq.steps import failures
from jobq.steps.position import Position, current_position
from jobq.steps.store import (
    Holder,
    LoadSteps,
    NewStep,
    RunAgain,
    StepKey,
    StepStore,
    StoredStep,
    TakeSignal,
    WriteSteps,
)
from jobq.steps.suspension import Suspended

MOST_STEPS = 100_000
"""Most steps of one job."""
FINAL = ("done", "failed", "timed_out")
VERDICT = StepKey("undo", "", "", 0)
"""The key of the row that says why a job ends, while its steps are being undone."""

in_branch: ContextVar[bool] = ContextVar("jobq_step_branch", default=False)
"""Whether the code runs in a branch of ``step.gather``."""


@dataclass(frozen=True, slots=True)
class Call:
    """Request: call a function of the task, and send its result or throw its exception."""

    function: partial[Any]


@dataclass(frozen=True, slots=True)
class Perform:
    """Request: call a function of jobq. On an event loop it returns an awaitable."""

    function: Callable[[], Any]


Taking = Generator[Any, Any, Any]
"""A step that is being taken: it yields requests, is sent their replies, and returns the step's value."""


class Undo(NamedTuple):
    """How to undo a step."""

    place: int
    key: StepKey
    function: Callable[[Any], Any]
    result: Any


class UndoNow(BaseException):
    """Raised by a new step of a job whose steps are being undone: there is nothing more to do."""


branch_order: ContextVar[Callable[[int], list[int]] | None] = ContextVar("jobq_step_branch_order", default=None)
"""Returns in which order the branches of a gather begin, for tests; None: in their own."""

branch_path: ContextVar[tuple[int, ...]] = ContextVar("jobq_step_branch_path", default=())
"""The branches in which the code runs, from the outermost gather on."""


@dataclass(frozen=True, slots=True)
class _Raised:
    """An error that a step has raised."""

    error: BaseException
    key: StepKey
    path: tuple[int, ...]
    has_attempts: bool
    """Whether the step has attempts of its own, which are used up."""


@dataclass(slots=True, kw_only=True, eq=False)
class StepLog:
    """The stored steps of one job, as one execution of it sees them."""

    holder: Holder
    task: str
    store: StepStore
    is_async: bool
    """Whether the task is an ``async def``."""
    max_result_bytes: int
    is_cancelled: Callable[[], bool]
    is_stopping: Callable[[], bool]
    is_draining: Callable[[], bool] = lambda: False
    """Whether the worker has begun to stop: iterations end at their next item."""
    is_aside: Callable[[], bool] = lambda: False
    """Whether the code that asks runs in another thread or asyncio task than the task's function."""
    host: Any = None
    """The application: it starts children, and lends connections for transactional steps."""
    suspended: Suspended | None = None
    """Why this execution ends; set outside of branches only."""
    ended: bool = False
    undos: list[Undo] = field(default_factory=list)
    """How to undo the steps that are done, in the order in which this execution has come to them."""
    verdict: str | None = None
    """Why the job ends, as JSON text, if its steps are being undone."""
    is_cancelling: bool = False
    """Whether the job was to be cancelled when its steps were loaded."""
    positions: list[Position] = field(default_factory=list)
    """Of the iterations that were begun."""
    _stored: dict[StepKey, StoredStep] | None = None
    _unasked: dict[tuple[str, str], set[StepKey]] = field(default_factory=dict)
    """Stored steps for which this execution has not asked yet, by kind and name."""
    _numbers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _functions: dict[str, object] = field(default_factory=dict)
    """The function of each step's name, in this execution."""
    _place: int = 0
    _pending: list[NewStep] = field(default_factory=list)
    """What is stored together with the next step: failures that the task has caught, and ends of waits."""
    _raised: list[_Raised] = field(default_factory=list)
    """Errors of steps after which the task has not come to another step."""

    # --- what the kinds of steps share --------------------

    def begin(self) -> Generator[Any, Any, None]:
        """Begin a step: load what is stored, at the first one."""
        if self.ended:
            raise NotDurable(
                f"step of job {self.holder.job_id}: the job's execution has ended: wait for its threads and coroutines"
            )
        if self.suspended is not None and not in_branch.get():
            # The task, or a library, has caught it: end again.
            raise self.suspended
        if self._stored is None:
            # At the first claim there can be none.
            found = [] if self.holder.claims == 1 else (yield LoadSteps())
            if self._stored is None:
                self._stored = {}
                for step in found:
                    self.is_cancelling = step.is_cancelling
                    if step.key == VERDICT:
                        self.verdict = step.result
                    self._stored[step.key] = step
                    self._unasked.setdefault(step.key[:2], set()).add(step.key)
                    self._place = max(self._place, step.place)

    def key(self, kind: str, name: str, args_hash: str) -> StepKey:
        """Return the key of the next step that has these."""
        position = current_position.get()
        if position is not None and position.is_out and position in self.positions:
            raise NotDurable(
                f"step {name!r} in a loop over step.iterate {position.key.name!r}: an iteration goes on in its middle, and "
                "would not come to the steps before: call the function itself, or enqueue a job for the item"
            )
        if self._raised:
            # The task goes on: it has caught what was raised here, or in branches that have ended.
            path = branch_path.get()
            self._raised = [each for each in self._raised if each.path[: len(path)] != path]
        number = self._numbers[kind, name, args_hash]
        self._numbers[kind, name, args_hash] += 1
        return StepKey(kind, name, args_hash, number)

    def find(self, key: StepKey) -> StoredStep | None:
        """Return the stored step; None: it is new."""
        assert self._stored is not None
        found = self._stored.get(key)
        if found is not None:
            self._unasked[key[:2]].discard(key)
        return found

    @property
    def asked(self) -> int:
        """Return the number of stored steps to which this execution has come."""
        return len(self._stored or {}) - sum(map(len, self._unasked.values()))

    @property
    def is_replaying(self) -> bool:
        """Whether steps are stored for which this execution has not asked yet."""
        return any(list(self._unasked.values()))

    @property
    def is_catching_up(self) -> bool:
        """Whether this execution has not come to all stored steps yet. Another thread may ask."""
        return self._stored is None or self.is_replaying

    @property
    def knows_all_undos(self) -> bool:
        """Whether this execution has come to all stored steps that have to be undone."""
        known = {each.key for each in self.undos}
        stored = (self._stored or {}).values()
        return all(step.key in known for step in stored if step.undo is not None and step.state == "done")

    def check_same(self, key: StepKey, args: str) -> None:
        """Raise StepChanged if the code has changed since this step was stored.

        A step with this name is stored with other arguments, and this execution has not asked for
        it. Nothing is checked in a branch of a gather, in a thread or in an asyncio task that the
        task has begun: there, another branch may still ask for it.
        """
        if in_branch.get() or self.is_aside():
            return
        for other in self._unasked.get(key[:2], ()):
            if other.args_hash == key.args_hash:
                continue
            stored = self._stored[other] if self._stored else None
            raise StepChanged(
                key.name,
                (stored and stored.args) or "?",
                args,
                f"job {self.holder.job_id}, task {self.task!r}: step {key.name!r} is stored with the arguments "
                f"{(stored and stored.args) or '?'}, and is now called with {args}: has the code changed? Call it with the "
                "former arguments, give the new step another name (step.options(name=…)), or branch by step.since(…)",
            )

    def check_function(self, name: str, identity: object) -> None:
        """Raise InvalidOption if another function has the name of this step: their results would be mixed up."""
        if self._functions.setdefault(name, identity) != identity:
            raise InvalidOption(
                f"step {name!r}: the task calls another function in a step of this name: a step is found again by its name "
                "and arguments; give one of them its own, step.options(name=…).run(…)"
            )

    def check_end(self) -> None:
        """Raise an error before a new step, or before the job waits, if the job is to end here."""
        if self.verdict is not None:
            raise UndoNow
        if self.is_cancelling or self.is_cancelled():
            if self.is_stopping():
                # Another worker goes on at this step.
                self.suspend(0.0)
            raise Cancel("cancelled by an operator")

    def check_room(self) -> None:
        """Raise an error before a new step if the job is to end here, or has too many steps."""
        self.check_end()
        if self._place >= MOST_STEPS:
            raise Fail(
                f"the job has {MOST_STEPS:,} steps, and may have no more: begin again with step.restart(…), or split it into "
                "several jobs with step.invoke(…)"
            )

    def new_place(self) -> int:
        """Return the place of the next new step."""
        self._place += 1
        return self._place

    def write(self, *steps: NewStep) -> Generator[Any, Any, None]:
        """Store steps, together with what is pending."""
        noted = self.flushed()
        if rows := [*noted, *steps]:
            try:
                yield WriteSteps(rows)
            except BaseException:
                self.put_back(noted)
                raise

    def flushed(self) -> list[NewStep]:
        """Return what is pending. The caller stores it, or puts it back."""
        pending, self._pending = self._pending, []
        return pending

    def put_back(self, noted: list[NewStep]) -> None:
        """Keep what was pending for the next step: it could not be stored."""
        self._pending[:0] = noted

    def note(self, step: NewStep) -> None:
        """Store `step` together with the next one."""
        self._pending.append(step)

    def take(self, key: StepKey, place: int, timeout: float | None) -> Generator[Any, StoredStep, StoredStep]:
        """Take a signal, or begin to wait for it."""
        yield from self.write()
        return (yield TakeSignal(key, place, timeout))

    def wait_on(self, stored: StoredStep) -> None:
        """Suspend for what is left of the time of a stored step; if nothing is, return."""
        if (stored.seconds_left or 0.0) > 0.0:
            self.check_end()
            self.suspend(stored.seconds_left or 0.0)

    def suspend(self, seconds: float, *, waits: bool = False) -> None:
        """End this execution: the task is called again after `seconds`, or when it is woken. Raises Suspended."""
        why = Suspended(max(seconds, 0.0), waits=waits)
        if not in_branch.get():
            self.suspended = why
        raise why

    def raised(self, error: BaseException, key: StepKey, *, has_attempts: bool = True) -> BaseException:
        """Note that a step raises `error`; return it."""
        self._raised.append(_Raised(error, key, branch_path.get(), has_attempts))
        return error

    def raised_together(self, error: BaseException, others: Iterable[BaseException]) -> None:
        """Note that `error` is raised for `others`, too: those of the other branches of a gather."""
        path = branch_path.get()
        self._raised += [_Raised(error, each.key, path, each.has_attempts) for each in self._raised_by(others)]

    def run_again(self, error: BaseException, *, at_once: bool) -> Future[Any] | None:
        """Have the steps run again whose failures end this execution with `error`; None: none is stored.

        The caller waits for it before it tells that the execution has ended.

        Args:
            error: what the task has raised.
            at_once: whether the job has another attempt. A step that has used up its attempts runs
                again only after an operator's retry of the job.
        """
        pending = {step.key for step in self._pending}
        found = [each for each in self._raised_by([error]) if not (at_once and each.has_attempts)]
        keys = list(dict.fromkeys(each.key for each in found if each.key not in pending))
        return self.store.submit(self.holder, RunAgain(keys, at_once)) if keys else None

    def save_positions(self) -> Future[Any] | None:
        """Store where iterations are, at the end of an execution that goes on later; None: nothing is new."""
        rows = [each.row("retrying") for each in self.positions if each.handled and not each.is_finished]
        for each in self.positions:
            each.saved(self.clock())
        return self.store.submit(self.holder, WriteSteps(rows)) if rows else None

    def _raised_by(self, errors: Iterable[BaseException]) -> list[_Raised]:
        found = {id(each) for error in errors for each in failures.causes(error)}
        return [each for each in self._raised if id(each.error) in found]

    @staticmethod
    def clock() -> float:
        """Return the time by which steps are measured, in seconds."""
        return time.monotonic()
