"""The runners of a worker: giving them jobs, receiving the outcomes, starting and replacing the runners."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from uuid import UUID

from jobq.backoff import Backoff
from jobq.errors import AppImportError
from jobq.worker import refusals, stacks, verdicts
from jobq.worker.children import Child
from jobq.worker.distribution import distribute
from jobq.worker.frames import (
    FromRunner,
    Hello,
    ImportFailed,
    Job,
    Outcomes,
    Progress,
    Recorded,
    ScheduleFacts,
    Setback,
    Success,
    TaskFacts,
)
from jobq.worker.lease import wait_or
from jobq.worker.options import WorkerOptions
from jobq.worker.overseer import Overseer
from jobq.worker.problems import Problems
from jobq.worker.quarantine import Quarantine
from jobq.worker.solos import Isolation
from jobq.worker.spec import Spec
from jobq.worker.starts import Starts

logger = logging.getLogger("jobq.worker")

# What runners are told while there is no lease that could end.
NO_LEASE = 0.0
_RESTART = Backoff(base=0.2, cap=30)

# What is written of an import that fails: see problems.py.
NO_RUNNER = "start a runner"


class RunnerPool:
    """`processes` runners, a few more while some are stuck, and runners for single jobs. Lives in the dispatcher's loop."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        on_success: Callable[[list[Success]], None],
        on_setback: Callable[[Setback], None],
        on_recorded: Callable[[Recorded], None],
        on_progress: Callable[[Progress], None],
        on_ready: Callable[[], None],
        on_quarantine: Callable[[str, int], object] = lambda task, deaths: None,
        problems: Problems | None = None,
    ) -> None:
        """`on_quarantine`: see `Quarantine`."""
        self._options = options
        self._on_success = on_success
        self._on_setback = on_setback
        self._on_recorded = on_recorded
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._problems = problems or Problems()
        self._overseer = Overseer(options)
        self._children: list[Child] = []
        self._quarantine = Quarantine(on_quarantine)
        self._solos = Isolation(options.isolated, options.max_jobs_per_runner, lambda: self._hire(1), self._quarantine)
        self.starts = Starts()
        self._facts: dict[str, TaskFacts] = {}
        self._isolated: frozenset[str] = frozenset()
        """The tasks whose jobs run in a process of their own."""
        self._deaths = 0
        """Runners that died before they were ready, since one was."""
        self._leaving = False
        """No runner is replaced any more."""
        self._staffing: asyncio.Task[None] | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self.deaths: Counter[str] = Counter()
        """Runners that ended, by why: crashed, or killed by us."""
        self.tasks: list[str] = []
        self.signatures: list[str] = []
        """Those of `tasks`, in the same order."""
        self.queues: list[str] = []
        """The queues that the application's tasks name; jobs may be put into others."""
        self.rules: dict[str, tuple[str, int | None, str | None]] = {}
        """How the groups of queues are to run, by the application's word."""
        self.schedules: list[ScheduleFacts] = []
        """What the application declares, as the first runner imported it: one that begins later may read newer code."""
        self.import_failure: str | None = None
        """Why the application could not be imported, when last tried; None once it could."""
        self.changed = asyncio.Event()
        """Set when a runner became ready, ended, or could not import the application."""

    @property
    def slots(self) -> int:
        """Jobs that the ready runners can execute at the same time."""
        return sum(child.slots for child in self._children if child.ready)

    @property
    def load(self) -> int:
        """Jobs that the ready runners have, started or not."""
        return sum(len(child.jobs) for child in self._children if child.ready) + len(self._solos) + len(self.starts)

    @property
    def held(self) -> int:
        """Jobs that this worker has, started or not."""
        return sum(len(child.jobs) for child in self._all()) + len(self._solos) + self.starts.held

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
        if stuck := [child.pulseless_since for child in self._children if child.pulseless_since is not None]:
            return f"{len(stuck)} runners do not react, for up to {time.monotonic() - min(stuck):.0f} s"
        if any(not child.vouched for child in self._children):
            return "the lease is over: no heartbeat for too long"
        importing = [time.monotonic() - child.born for child in self._children if not child.imported]
        if importing:
            return f"{len(importing)} importing the application {self._options.app!r}, for up to {max(importing):.0f} s"
        return f"{self._deaths} runners ended one after the other; another is about to be started"

    @property
    def runners_ready(self) -> int:
        """How many runners take jobs."""
        return sum(child.ready for child in self._children)

    @property
    def rss(self) -> int:
        """The runners' resident memory in bytes."""
        return sum(child.rss for child in self._all())

    def _all(self) -> list[Child]:
        return [*self._children, *self._solos.children]

    def room(self, prefetch: int) -> int:
        """Return how many jobs can be given now, when `prefetch` may wait beyond those being executed."""
        ready = [child for child in self._children if child.ready]
        # What runs alone takes no slot of theirs.
        slots = sum(child.slots for child in ready)
        room = slots - sum(len(child.jobs) for child in ready) - self._solos.keep_others_out(slots)
        if waiting := len(self.starts):
            # They start in free slots only, and nothing fetched in advance is to keep them from one.
            room -= waiting
        else:
            room += prefetch
        if (limit := self._options.max_jobs_per_runner) is not None:
            room = min(room, sum(limit - child.given for child in ready))
        return max(0, room)

    def startable(self, jobs: list[Job]) -> list[Job]:
        """Return those of `jobs`, from the first, for which there are slots that have nothing to do."""
        free = sum(max(0, child.slots - len(child.jobs)) for child in self._children if child.ready)
        return self._solos.startable(jobs, free, self._isolated)

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        """Tell whether this worker has this execution."""
        jobs = [held.job for child in self._all() if (held := child.jobs.get(job_id)) is not None]
        return self.starts.holds(job_id, claims, started) or any(
            (job.id, job.claims, job.started) == (job_id, claims, started) for job in (*jobs, *self._solos.waiting())
        )

    async def start(self) -> None:
        """Start the runners and wait until one is ready. Raises AppImportError when the application cannot be imported."""
        self._staff()
        while not self.ready:
            if self.import_failure is not None:
                raise AppImportError(self.import_failure)
            self.changed.clear()
            await wait_or(self.changed, 0.1)
            self.supervise(NO_LEASE)

    def _hire(self, concurrency: int) -> Child:
        """Return a new runner, which begins to start. Jobs may be sent to it at once."""
        child = Child(
            Spec(
                app=self._options.app,
                socket_fd=-1,
                slots_fd=-1,
                concurrency=concurrency,
                max_result_bytes=self._options.settings.max_result_bytes,
                max_error_bytes=self._options.max_error_bytes,
                settings=self._options.settings,
                log_format=self._options.log_format,
                log_level=self._options.log_level,
            ),
            on_message=self._hear,
            on_exit=self._bury,
        )
        child.open()
        return child

    # --- jobs in, outcomes out --------------------

    def give(self, jobs: Iterable[Job], worker: UUID) -> None:
        """Hand jobs, claimed in the name of `worker`, to the runners: the least loaded first, those slow to react last."""
        now = time.monotonic()
        known = self.runnable(jobs)
        others = self._solos.pick(known, worker, now, self._isolated, self._held_again(known))
        ready = [child for child in self._children if child.ready]
        shares, left = distribute(others, ready, self._options.max_jobs_per_runner)
        for child, share in shares:
            child.send(share, worker, now)
        for job in left:
            self._on_setback(verdicts.unstarted(job))
        for job in self._solos.surplus():
            self._send_back_unserved(job)

    def _send_back_unserved(self, job: Job) -> None:
        self._on_setback(verdicts.unserved(job, suspect=self._solos.suspects(job, self._isolated)))

    def runnable(self, jobs: Iterable[Job]) -> list[Job]:
        """Return those of `jobs` whose tasks this code has; the others are refused."""
        known = []
        for job in jobs:
            if job.task in self._facts:
                known.append(job)
            else:
                # Not to a runner, whose slots may all be taken for long: another worker is waiting for it.
                self._on_setback(refusals.unknown(job, self._facts))
        return known

    def _held_again(self, jobs: list[Job]) -> frozenset[int]:
        """Return the ids of those of `jobs` that name an execution here that the database no longer knows.

        A failover that lost the former primary's last commits issues their ids again. A runner has one job of an id at most,
        so that none answers for the other: the new one gets a runner of its own.
        """
        ids = [job.id for job in jobs]
        found = [child.jobs.keys() & ids for child in self._all() if not child.jobs.keys().isdisjoint(ids)]
        for job_id in (again := frozenset().union(*found)):
            logger.warning(
                "an execution runs here that the database has lost: its id was issued again", extra={"job": job_id}
            )
        return again

    def _hear(self, child: Child, message: FromRunner) -> None:
        match message:
            case Outcomes(successes, setbacks, recorded):
                if self._quarantine:
                    ids = (
                        [each.id for each in successes]
                        + [each.id for each in setbacks]
                        + [each.id for each in recorded]
                    )
                    self._quarantine.heard(child.jobs[each].job.task for each in ids if each in child.jobs)
                if (successes or recorded) and logger.isEnabledFor(logging.DEBUG):
                    _tell_successes(child, [*successes, *(record for record in recorded if record.accepted)])
                if succeeded := child.take(successes):
                    self._on_success(succeeded)
                if setbacks:
                    for setback in child.take([child.named(setback) for setback in setbacks]):
                        self._on_setback(setback)
                if recorded:
                    for record in child.take(recorded):
                        self._on_recorded(record)
                self._solos.freed(child, time.monotonic())
            case Progress():
                self._on_progress(message)
            case Hello(tasks, schedules):
                child.begin(time.monotonic())
                if not self.tasks:
                    self.schedules = schedules
                self._facts = {task.name: task for task in tasks}
                self._isolated = frozenset(task.name for task in tasks if task.isolated)
                self.queues = sorted({task.queue for task in tasks})
                self.rules = {task.queue: task.groups for task in tasks if task.groups is not None}
                self.tasks = [task.name for task in tasks]
                self.signatures = [task.signature for task in tasks]
                self._deaths = 0
                self.import_failure = None
                self._problems.clear(NO_RUNNER)
                self.changed.set()
                self._on_ready()
            case ImportFailed(text, trace):
                self.import_failure = f"the application {self._options.app!r} cannot be imported: {text}"
                logger.error(self.import_failure, extra={"traceback": trace})
                self._problems.note(NO_RUNNER, self.import_failure)

    # --- watching --------------------

    def supervise(self, vouch_until: float) -> None:
        """Look after the runners; called several times a second. Costs a read of shared memory each.

        `vouch_until`: the time of time.monotonic() at which the worker's lease obliges them to have ended.
        """
        now, slots, room = time.monotonic(), self.slots, self.room(0)
        self._overseer.begin(self._all(), now)
        for child in self._all():
            child.vouch(vouch_until, now)
            for job in self._overseer.look(child, now):
                self._on_setback(verdicts.unstarted(job))
        self._quarantine.tend(now)
        for job in self._solos.tend(now):
            self._send_back_unserved(job)
        for job in self.starts.overdue(now, self.startable):
            alone = self._solos.takes(job, self._isolated)
            if alone:
                self._send_back_unserved(job)
            else:
                self._on_setback(verdicts.unstarted(job))
        self._overseer.relieve(self._children, self._wanted, now)
        self._staff()
        if self.slots > slots or self.room(0) > room:
            self._on_ready()

    @property
    def _wanted(self) -> int:
        """How many runners there should be: one more for each that is stuck, up to twice as many as usual."""
        stuck = sum(self._overseer.is_stuck(child) for child in self._children)
        return self._options.processes + min(stuck, self._options.processes)

    def _staff(self) -> None:
        fresh = sum(child.worn is None and child.retiring is None for child in self._children)
        if fresh < self._wanted and not self._leaving and (self._staffing is None or self._staffing.done()):
            self._staffing = asyncio.ensure_future(self._recruit(self._wanted - fresh))

    async def _recruit(self, number: int) -> None:
        if self._deaths > 1:
            delay = _RESTART.longest(min(self._deaths - 1, 10))
            logger.warning("waiting before the next runner is started", extra={"died": self._deaths, "delay": delay})
            await asyncio.sleep(delay)
        for _ in range(number):
            if self._leaving:
                return
            try:
                self._children.append(self._hire(self._options.concurrency))
            except OSError as error:
                logger.error("no runner can be started", extra={"error": str(error)})
                await asyncio.sleep(1)

    def _bury(self, child: Child, status: int) -> None:
        """Judge the jobs of a runner that has ended, and start another."""
        now = time.monotonic()
        if child.ended_by_lease:
            if child.killed_for is None and child.taken_for_over > now:
                # A task has changed its clock (`time.monotonic`). As the worker's own matter it would happen again and again.
                child.killed_for, child.to_blame = "it took its lease for over, which was not", True
            else:
                child.killed_for, child.of_worker = child.killed_for or "its lease was over", True
        started, how = len(child.started()), verdicts.how_it_ended(child, status)
        verdict = verdicts.judge(child, how, now, self._facts, self._options)
        for setback in verdict.setbacks:
            self._on_setback(child.named(setback))
        self._quarantine.judged(verdict.guilty, verdict.suspected, now)
        child.jobs.clear()
        if child in self._children:
            self._children.remove(child)
        else:
            self._solos.buried(child, now)
        if not child.dismissed:
            self.deaths["crashed" if child.killed_for is None else "killed"] += 1
        if not child.imported:
            self._deaths += 1
        level = logging.ERROR if child.killed_for is None else logging.WARNING
        logger.log(
            logging.INFO if child.dismissed else level,
            f"a runner {how}" + ("" if child.imported else f" before it had imported {self._options.app!r}"),
            extra={"pid": child.pid, "started": started},
        )
        self.changed.set()
        burial = asyncio.ensure_future(child.closed())
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        self._staff()

    def dump_stacks(self) -> None:
        """Have every runner print what it is doing, one after the other."""
        loop = asyncio.get_running_loop()
        for place, child in enumerate(self._all(), 1):
            loop.call_later(place * stacks.FORWARD_AFTER, child.dump_stacks)

    # --- stopping --------------------

    def give_back(self) -> None:
        """Take back what has not started, for other workers; the runners stay, and what runs goes on."""
        now = time.monotonic()
        for child in self._all():
            child.revoke(now)
        for job in self._solos.withdraw() + self.starts.withdraw():
            self._on_setback(verdicts.unstarted(job))

    def drain(self) -> None:
        """Take back what has not started, and let the rest end: the worker stops."""
        self._leaving = True
        self.give_back()
        for child in self._all():
            # Those that have no job need not wait for the others' jobs.
            child.retiring = child.retiring or verdicts.STOPPING
            if not child.imported:
                child.kill(verdicts.STOPPING, of_worker=True)

    def cancel(self, ids: list[int]) -> None:
        """An operator wants these jobs stopped."""
        for job in self._solos.withdraw(set(ids)) + self.starts.withdraw(set(ids)):
            self._on_setback(verdicts.unstarted(job))
        for child in self._all():
            if mine := [job_id for job_id in ids if job_id in child.jobs]:
                child.cancel(mine)

    def cancel_all(self) -> None:
        """The worker stops: ask every running job to end."""
        for child in self._all():
            child.cancel(list(child.jobs), stopping=True)

    def kill_all(self, reason: str) -> None:
        """End every runner with jobs at once; its jobs are handed to `on_setback` as each end is noticed."""
        for job in self._solos.withdraw() + self.starts.withdraw():
            self._on_setback(verdicts.unstarted(job))
        for child in self._all():
            if child.jobs:
                child.kill(reason, of_worker=True)

    def end_all(self) -> None:
        """End every runner at once, those included that are ending in good order."""
        for child in self._all():
            child.kill(verdicts.STOPPING, of_worker=True)

    async def close(self, *, at_once: bool = False) -> None:
        """End all runners, in good order unless `at_once`, and wait for them."""
        self._leaving = True
        if self._staffing is not None:
            self._staffing.cancel()
            await asyncio.gather(self._staffing, return_exceptions=True)
        await asyncio.gather(*(child.stop(at_once=at_once) for child in self._all()), *self._burials)


def _tell_successes(child: Child, successes: Iterable[Success | Recorded]) -> None:
    now = time.monotonic()
    for success in successes:
        if (held := child.jobs.get(success.id)) is not None:
            job = held.job
            extra = {"job": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt}
            seconds = success.seconds if isinstance(success, Success) else now - held.since
            logger.debug("job succeeded", extra={**extra, "seconds": round(seconds, 3)})
