"""The runners of a worker: giving them jobs, and judging what becomes of those jobs when a runner ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from jobq.errors import AppImportError
from jobq.tasks import Backoff
from jobq.worker.children import Child
from jobq.worker.frames import (
    Ending,
    FromRunner,
    Hello,
    ImportFailed,
    Job,
    Outcomes,
    Progress,
    Setback,
    Success,
)
from jobq.worker.options import WorkerOptions
from jobq.worker.spec import Spec

logger = logging.getLogger("jobq.worker")

# A job that has seen this many runners crash runs in a runner of its own, so that its next crash can only be its own.
QUARANTINE_AFTER = 2
# A prefetched job that has not started within this time goes back, for another worker to take.
RECALL_AFTER = 1.0
# A runner that has not imported the application by then is started anew.
IMPORT_WITHIN = 120.0
# What a job gets beyond its timeout to notice it (`current_job().deadline`, a coroutine's cancellation) before its runner
# is killed.
TIMEOUT_GRACE = 0.5
_RESTART = Backoff(base=0.2, cap=30)
_CRASH = Backoff(base=1, cap=60)


class RunnerPool:
    """`processes` runners, and one more for suspects when there are any. Lives in the dispatcher's event loop."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        on_success: Callable[[Success], None],
        on_setback: Callable[[Setback], None],
        on_progress: Callable[[Progress], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._options = options
        self._on_success = on_success
        self._on_setback = on_setback
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._children: list[Child] = []
        self._quarantine: Child | None = None
        self._deaths = 0
        self._closing = False
        self._restarts: set[asyncio.Task[None]] = set()
        self.tasks: list[str] = []
        self.queues: list[str] = []
        """The queues that the application's tasks name; jobs may be put into others."""
        self.import_failure: str | None = None
        self.changed = asyncio.Event()
        """Set when a runner became ready, ended, or could not import the application."""

    @property
    def slots(self) -> int:
        """Jobs that the ready runners can execute at the same time."""
        return sum(self._options.concurrency for child in self._children if child.ready)

    @property
    def held(self) -> int:
        """Jobs that runners have, started or not."""
        return sum(len(child.jobs) for child in self._all())

    @property
    def ready(self) -> bool:
        """Whether some runner takes jobs."""
        return any(child.ready for child in self._children)

    @property
    def unready(self) -> str | None:
        """Why no runner takes jobs, in words; None when one does."""
        if self.ready:
            return None
        if self.import_failure is not None:
            return self.import_failure
        importing = [time.monotonic() - child.born for child in self._children if child.tasks is None]
        if importing:
            return f"{len(importing)} importing the application {self._options.app!r}, for up to {max(importing):.0f} s"
        return f"{self._deaths} runners ended one after the other; another is about to be started"

    def _all(self) -> list[Child]:
        return [*self._children, *([self._quarantine] if self._quarantine is not None else [])]

    def holds(self, job_id: int, claims: int) -> bool:
        """Tell whether some runner has this execution."""
        return any((held := child.jobs.get(job_id)) is not None and held.job.claims == claims for child in self._all())

    def held_jobs(self) -> list[Job]:
        """Return every job that a runner has."""
        return [held.job for child in self._all() for held in child.jobs.values()]

    async def start(self) -> None:
        """Start the runners and wait until one is ready. Raises AppImportError when the application cannot be imported."""
        for _ in range(self._options.processes):
            await self._start_child()
        while not self.ready:
            if self.import_failure is not None:
                raise AppImportError(self.import_failure)
            self.changed.clear()
            await self.changed.wait()

    def _spec(self, concurrency: int) -> Spec:
        return Spec(
            app=self._options.app,
            socket_fd=-1,
            slots_fd=-1,
            concurrency=concurrency,
            max_result_bytes=self._options.settings.max_result_bytes,
            max_error_bytes=self._options.max_error_bytes,
            log_format=self._options.log_format,
            log_level=self._options.log_level,
        )

    async def _start_child(self, *, quarantine: bool = False) -> Child:
        concurrency = 1 if quarantine else self._options.concurrency
        child = Child(self._spec(concurrency), on_message=self._hear, on_exit=self._bury)
        if quarantine:
            self._quarantine = child
        else:
            self._children.append(child)
        try:
            await child.start()
        except OSError:
            if child in self._children:
                self._children.remove(child)
            if child is self._quarantine:
                self._quarantine = None
            raise
        return child

    # --- jobs in, outcomes out --------------------

    async def give(self, jobs: Iterable[Job]) -> None:
        """Hand jobs to the runners, the least loaded first; a suspect goes to the quarantine."""
        now = time.monotonic()
        ready = [child for child in self._children if child.ready]
        suspects = [job for job in jobs if job.crashes >= QUARANTINE_AFTER]
        others = [job for job in jobs if job.crashes < QUARANTINE_AFTER]
        if suspects:
            child = self._quarantine or await self._start_child(quarantine=True)
            child.send(suspects, now)
        if len(ready) == 1:
            if others:
                ready[0].send(others, now)
            return
        shares: dict[int, list[Job]] = {index: [] for index in range(len(ready))}
        for job in others:
            if not ready:
                self._on_setback(Setback(job.id, job.claims, Ending.RELEASE))
                continue
            index = min(shares, key=lambda i: len(ready[i].jobs) + len(shares[i]))
            shares[index].append(job)
        for index, share in shares.items():
            if share:
                ready[index].send(share, now)

    def _hear(self, child: Child, message: FromRunner) -> None:
        match message:
            case Outcomes(successes, setbacks):
                for success in successes:
                    if child.take(success.id, success.claims) is not None:
                        self._on_success(success)
                for setback in setbacks:
                    if child.take(setback.id, setback.claims) is not None:
                        self._on_setback(setback)
                child.recalled = False
            case Progress():
                self._on_progress(message)
            case Hello(tasks, queues):
                child.begin(tasks, time.monotonic())
                self.tasks, self.queues = tasks, queues
                self._deaths = 0
                self.changed.set()
                self._on_ready()
            case ImportFailed(text, trace):
                self.import_failure = f"the application {self._options.app!r} cannot be imported: {text}"
                logger.error(self.import_failure, extra={"traceback": trace})

    # --- watching --------------------

    def supervise(self, vouch_until: float) -> None:
        """Look after the runners; called several times a second. Costs a read of shared memory each.

        `vouch_until`: the time of time.monotonic() at which the worker's lease obliges them to have ended.
        """
        now = time.monotonic()
        for child in self._all():
            child.vouch(vouch_until)
            started = child.started()
            if any(slot.deadline is not None and now > slot.deadline + TIMEOUT_GRACE for slot in started):
                child.kill("a job passed its timeout")
                continue
            if child.tasks is None:
                # Its jobs wait for the import, in quarantine; no other runner would take them.
                if now - child.born > IMPORT_WITHIN:
                    child.kill(f"it was not ready within {IMPORT_WITHIN:g} s")
                continue
            if child.recalled or len(child.jobs) <= len(started):
                continue
            running = {slot.id for slot in started}
            if any(now - held.since > RECALL_AFTER for job_id, held in child.jobs.items() if job_id not in running):
                child.recall()
        quarantine = self._quarantine
        if quarantine is not None and quarantine.ready and not quarantine.jobs:
            quarantine.kill("nothing is left in quarantine")

    def _bury(self, child: Child, status: int) -> None:
        """Judge the jobs of a runner that has ended, and start another."""
        now = time.monotonic()
        started = {(slot.id, slot.claims): slot for slot in child.started()}
        blameless = child.killed_for is not None and not child.to_blame
        for held in list(child.jobs.values()):
            job = held.job
            slot = started.get((job.id, job.claims))
            if slot is None:
                self._on_setback(Setback(job.id, job.claims, Ending.RELEASE))
            elif slot.deadline is not None and now > slot.deadline:
                self._on_setback(_timed_out(job, now - slot.since))
            elif blameless:
                self._on_setback(Setback(job.id, job.claims, Ending.RELEASE, seconds=now - slot.since))
            else:
                self._on_setback(_crashed(job, now - slot.since, status, self._options.max_crashes))
        child.jobs.clear()
        if child is self._quarantine:
            self._quarantine = None
        else:
            self._children.remove(child)
        self.changed.set()
        if self._closing:
            return
        if child.killed_for is None:
            self._deaths += 1
            logger.error("a runner ended", extra={"pid": child.pid, "status": status, "started": len(started)})
        else:
            logger.warning("a runner was killed", extra={"pid": child.pid, "reason": child.killed_for})
        self._background(self._replace(child))

    async def _replace(self, dead: Child) -> None:
        await dead.closed()
        if self._deaths > 1:
            await asyncio.sleep(_RESTART.delay(min(self._deaths, 10)))
        while not self._closing and len(self._children) < self._options.processes:
            try:
                await self._start_child()
            except OSError as error:
                logger.error("no runner can be started", extra={"error": str(error)})
                await asyncio.sleep(1)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    # --- stopping --------------------

    def recall(self) -> None:
        """Ask every runner for what it has not started."""
        for child in self._all():
            child.recall()

    def cancel(self, ids: list[int]) -> None:
        """An operator wants these jobs stopped."""
        for child in self._all():
            if mine := [job_id for job_id in ids if job_id in child.jobs]:
                child.cancel(mine)

    def cancel_all(self) -> None:
        """The worker stops: ask every running job to end."""
        for child in self._all():
            child.cancel(list(child.jobs), stopping=True)

    def kill_all(self, reason: str) -> None:
        """End every runner at once; its jobs are handed to `on_setback` as each end is noticed."""
        for child in self._all():
            child.kill(reason)

    async def close(self) -> None:
        """End all runners and wait for them."""
        self._closing = True
        for task in list(self._restarts):
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._all()))


def _timed_out(job: Job, seconds: float) -> Setback:
    last = job.attempt >= job.max_attempts
    return Setback(
        job.id,
        job.claims,
        Ending.FAIL if last else Ending.RETRY,
        delay=0.0 if last else Backoff().delay(job.attempt),
        seconds=seconds,
        recorded="timeout",
        error_type="TimedOut",
        message=f"timed out after {job.timeout:g} s; its runner was killed",
    )


def _crashed(job: Job, seconds: float, status: int, max_crashes: int) -> Setback:
    how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
    last = job.crashes + 1 >= max_crashes
    return Setback(
        job.id,
        job.claims,
        Ending.FAIL if last else Ending.CRASH,
        delay=0.0 if last else random.uniform(0, _CRASH.delay(job.crashes + 1)),
        seconds=seconds,
        recorded="crashed",
        error_type="RunnerCrashed",
        message=f"its runner was {how} while it ran" + (f", {job.crashes + 1} times now" if last else ""),
    )
