"""Durable tasks in eager mode: their steps, children, signals and time are in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from jobq._app.step_host import StepHost
from jobq.errors import ConfigurationError, InvalidOption, NotTransactional, SignalNotSent
from jobq.job import InsertResult, NewJob
from jobq.jobref import JobRef
from jobq.steps.log import StepLog
from jobq.steps.memory import MemorySteps
from jobq.steps.store import NewStep, StepKey, StepStore, WriteSteps
from jobq.testing.crashes import CrashingSteps, Played, Signals, check_crashes, no_signal
from jobq.testing.eager_job import EagerJob
from jobq.testing.eager_record import EagerRecord
from jobq.workflow.run import WorkflowRun

if TYPE_CHECKING:
    from jobq.app import JobQ


@dataclass
class Waits:
    """Which durable jobs of an `eager` block wait, and for what."""

    store: MemorySteps = field(default_factory=lambda: MemorySteps(retry_at_once=True))
    children: list[EagerJob] = field(default_factory=list)
    """Children that have not begun."""
    _waiting: dict[int, set[tuple[StepKey, int]]] = field(default_factory=dict)
    """Jobs whose execution has ended at a step; of each, what has come and was told to it."""

    def noted(self, job: EagerJob, *, is_suspended: bool) -> None:
        """Note that an execution of `job` has ended, and whether it has at a step that waits."""
        if is_suspended:
            self._waiting.setdefault(job.id, set())
        else:
            self._waiting.pop(job.id, None)

    def next(self, jobs: Sequence[EagerJob]) -> EagerJob | None:
        """Return a child to begin, or a job that can go on."""
        while self.children:
            if (child := self.children.pop(0)).state == "ready":
                return child
        for job_id, told in self._waiting.items():
            # A step that is done is stored with the next one. Until then it is still waiting in
            # the store, so each is told once.
            come = {(step.key, step.tries) for step in self.store.come(job_id, lambda child: _is_over(jobs, child))}
            if jobs[job_id - 1].state == "ready" and not come <= told:
                told.update(come)
                return jobs[job_id - 1]
        return None

    def next_wake(self, jobs: Sequence[EagerJob]) -> float | None:
        """Return the seconds until the next job goes on by itself; None: none does."""
        left = [
            step.seconds_left
            for job_id in self._waiting
            if jobs[job_id - 1].state == "ready"
            for step in self.store.open_steps(job_id)
            if step.seconds_left is not None and step.seconds_left > 0
        ]
        return min(left, default=None)


class EagerSteps(EagerRecord):
    """The methods of `EagerJobs` for durable tasks."""

    _app: JobQ
    _run: bool
    _waits: Waits

    def send_signal(
        self, target: EagerJob | JobRef[Any] | int, name: str, payload: object = None, *, sent_by: str | None = None
    ) -> None:
        """Send a signal to a durable job, as ``q.send_signal`` does, which works in the block, too.

        If the job waits for it, it goes on at once. Raises as ``q.send_signal``.
        """
        self._deliver(target, name, payload, sent_by)
        self._settle()

    def advance(
        self,
        by: timedelta | None = None,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let time pass for durable jobs: sleeps end, waits time out, and the jobs go on.

        They go on in the order of their times, as if the time passed slowly: a job that sleeps a day
        three times has slept three times after ``advance(days=3)``. Other delays have no effect in
        eager mode. Raises InvalidOption if the time is not above 0.
        """
        total = (by or timedelta()) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if total <= timedelta():
            raise InvalidOption(f"advance: {total} is not in the future: expected a time above 0, such as hours=3")
        store = self._waits.store
        until = store.now() + total.total_seconds()
        while (wake := self._waits.next_wake(self.jobs)) is not None and store.now() + wake <= until:
            store.ahead += wake
            self._settle()
        store.ahead += max(until - store.now(), 0.0)
        self._settle()

    def assert_replays(
        self,
        job: NewJob,
        *,
        signals: Signals = (),
        before_each: Callable[[], object] | None = None,
        same: Callable[[Any, Any], object] | None = None,
        shuffle: bool = False,
    ) -> int:
        """Fail unless a durable task ends as without a crash if it crashes behind any of its steps.

        It is `JobqTester.assert_replays` without a database: the parameters are the same.
        """
        __tracebackhide__ = True
        return check_crashes(
            job.task,
            lambda crash: self._play(job, signals, crash),
            before_each=before_each,
            same=same,
            shuffle=shuffle,
        )

    def _play(self, job: NewJob, signals: Signals, crash: int | None) -> Played:
        __tracebackhide__ = True
        steps = CrashingSteps(self._waits.store, crash)
        played, _ = self._take(job.with_options(key=None))
        for name, payload in signals:
            self._deliver(played, name, payload, None)
        with self._storing(steps):
            self._execute(played)
            while played.state == "ready":
                while (other := self._waits.next(self.jobs)) is not None:
                    self._execute(other)
                if played.state == "ready":
                    wake = self._waits.next_wake(self.jobs)
                    if wake is None:
                        no_signal(job.task, [step.key.name for step in self._waits.store.open_steps(played.id)])
                    self._waits.store.ahead += wake
        return Played(played.state, played.result_json, played.error, steps.stored)

    def send_own_signal(
        self,
        connection: object,
        target: JobRef[Any] | WorkflowRun[Any] | int,
        name: str,
        payload: object = None,
        *,
        sent_by: str | None = None,
    ) -> int:
        """Stand in for ``q.send_signal``."""
        number = self._deliver(target, name, payload, sent_by)
        self._settle()
        return number

    async def send_own_signal_async(
        self,
        connection: object,
        target: JobRef[Any] | WorkflowRun[Any] | int,
        name: str,
        payload: object = None,
        *,
        sent_by: str | None = None,
    ) -> int:
        """Stand in for ``q.send_signal_async``."""
        number = self._deliver(target, name, payload, sent_by)
        await self._settle_async()
        return number

    def _deliver(self, target: object, name: str, payload: object, sent_by: str | None) -> int:
        if isinstance(target, WorkflowRun):
            _no_workflows()
        values = self._app._signal(target.id if isinstance(target, EagerJob) else target, name, payload, sent_by)
        job = self._find(values["job"])
        if job is None or job.state not in ("ready", "running"):
            what = f"job {values['job']} has finished" if job is not None else f"there is no job {values['job']}"
            raise SignalNotSent(f"signal {name!r}: {what}: no signal was sent", "finished" if job else "unknown")
        return self._waits.store.send(job.id, name, values["payload"])

    def _settle(self) -> None:
        """Run what can go on, until nothing can."""
        while self._run and (job := self._waits.next(self.jobs)) is not None:
            self._execute(job)

    async def _settle_async(self) -> None:
        while self._run and (job := self._waits.next(self.jobs)) is not None:
            await self._execute_async(job)

    @abstractmethod
    def _take(self, new: NewJob) -> tuple[EagerJob, InsertResult]:
        """Accept a job."""

    @abstractmethod
    def _storing(self, steps: StepStore) -> AbstractContextManager[None]:
        """Store steps by `steps` inside the with block."""

    @abstractmethod
    def _execute(self, job: EagerJob) -> None:
        """Run a job until it has ended or waits."""

    @abstractmethod
    async def _execute_async(self, job: EagerJob) -> None:
        """Run a job, on the running event loop if its task is async."""


class EagerHost(StepHost):
    """What the steps of eager jobs need: children are jobs of the same block, and there are no transactions."""

    def __init__(self, app: JobQ, jobs: list[EagerJob], waits: Waits, take: Callable[[NewJob], Any]) -> None:
        super().__init__(app)
        self._jobs = jobs
        self._waits = waits
        self._take = take

    def start_child(self, log: StepLog, job: NewJob, step: NewStep) -> None:
        """Accept a child, which begins when its parent waits."""
        [inserted] = self._app.middlewares.insert([job], self._insert)  # type: ignore[attr-defined]
        log.store.submit(log.holder, WriteSteps([replace(step, child_id=inserted.id)])).result()

    async def start_child_async(self, log: StepLog, job: NewJob, step: NewStep) -> None:
        """Accept a child, like `start_child`."""

        async def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
            return self._insert(jobs)

        [inserted] = await self._app.middlewares.insert_async([job], insert)  # type: ignore[attr-defined]
        log.store.submit(log.holder, WriteSteps([replace(step, child_id=inserted.id)])).result()

    def look(self, child: int | None) -> tuple[str, str | None, str | None] | None:
        """Return how a child has ended; None: it has not."""
        if child is None or not _is_over(self._jobs, child):
            return None
        job = self._jobs[child - 1]
        return job.state, job.result_json, job.error

    async def look_async(self, child: int | None) -> tuple[str, str | None, str | None] | None:
        """Return how a child has ended, like `look`."""
        return self.look(child)

    def in_transaction(self, *_: object) -> NoReturn:
        raise NotTransactional(
            "eager mode has no database: a step with transactional=True is tested with the fixture jobq"
        )

    async def in_transaction_async(self, *_: object) -> NoReturn:
        self.in_transaction()

    def _insert(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        done: list[InsertResult] = []
        for new in jobs:
            job, inserted = self._take(new)
            done.append(inserted)
            self._waits.children.append(job)
        return done


def _is_over(jobs: Sequence[EagerJob], child: int) -> bool:
    return jobs[child - 1].state not in ("ready", "running")


def _no_workflows() -> NoReturn:
    raise ConfigurationError(
        "eager mode has no database, and workflows need one: test them with the fixture jobq, whose drain() runs them"
    )
