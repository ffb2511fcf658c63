"""The dispatcher's side of a runner: starting it, talking to it, knowing what it has, noticing its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import msgspec

from jobq.worker import frames, stacks
from jobq.worker.frames import CancelJobs, FromRunner, Job, Recorded, Run, Setback, Success, ToRunner
from jobq.worker.line import Line
from jobq.worker.memory import resident
from jobq.worker.process import RunnerProcess
from jobq.worker.slots import SETTLED, SlotTable, Started
from jobq.worker.spec import KILL_AFTER, Spec

logger = logging.getLogger("jobq.worker")

OutcomeT = TypeVar("OutcomeT", Success, Setback, Recorded)

# A runner that has ended can have left its end of the socket to a process that it forked. Once it is dead, what it wrote
# lies in our buffers: when nothing has come for this long, nothing will.
LAST_WORDS = 0.2
# A runner whose pulse has not been felt for this long does not react: a task holds its interpreter, or it is stopped. It
# beats every 50 ms; a busy machine makes it late, too, and what was given is then taken back for nothing.
PULSELESS_AFTER = 0.5
# One whose pulse lags like this (a task computes in Python), or is this late, is slow: others come first.
SLOW_LAG = 0.003
LATE = 0.12


class Held(msgspec.Struct, gc=False):
    """A job that a runner has, since when (time.monotonic()), and its serial: the how-manieth it was given."""

    job: Job
    since: float
    serial: int


class Child:
    """One runner process. `on_message` hears its frames, `on_exit` its end; both in the dispatcher's event loop."""

    def __init__(
        self,
        spec: Spec,
        *,
        on_message: Callable[[Child, FromRunner], None],
        on_exit: Callable[[Child, int], None],
    ) -> None:
        self.jobs: dict[int, Held] = {}
        self.imported = False
        """Whether it can run jobs."""
        self.given = 0
        """Jobs that it was given and has not handed back."""
        self.worn: str | None = None
        """Why a successor is wanted; it goes on until there is one."""
        self.retiring: str | None = None
        """Why it gets no more jobs; it ends with its last one."""
        self.killed_for: str | None = None
        """Why we ended it, when we did."""
        self.of_worker = False
        """Whether that concerned the worker, and not this runner or its jobs."""
        self.dismissed = False
        """Whether it was ended in good order: no fault, no death to count."""
        self.to_blame = False
        """Whether it was killed for something that its running jobs must have done."""
        self.born = time.monotonic()
        self.idle_since = self.born
        """When it last had a job, if it has none."""
        self.vouched = True
        """Whether there is a lease under which it may begin jobs."""
        self.pulseless_since: float | None = None
        """Since when it does not react, as last observed."""
        self.pulseless_looks = 0
        """How often in a row it was seen not to react: a time that this process itself did not run in does not count."""
        self._serial = 0
        self._revoked_at: float | None = None
        self._spec = spec
        self._on_message = on_message
        self._on_exit = on_exit
        self._table = SlotTable.create(spec.concurrency)
        self.kill_at: float | None = None
        """When it is killed for a job that is over its timeout, if the jobs beside that have not ended before."""
        self.mute = False
        """Whether it was killed since it could not tell any more how its jobs had ended."""
        self.mute_looks = 0
        """How often in a row it was seen to owe an outcome and to send nothing."""
        self._heard_at_look = -1
        self._process: RunnerProcess | None = None
        self._line: Line | None = None
        self._unsent: list[ToRunner] = []
        """What was said before the socket was there."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, once it has started."""
        return self._process.pid if self._process else None

    @property
    def slots(self) -> int:
        """Jobs that it can execute at the same time."""
        return self._spec.concurrency

    @property
    def ready(self) -> bool:
        """Whether it takes jobs and reacts."""
        return (
            self.imported
            and self.vouched
            and self.killed_for is None
            and self.retiring is None
            and self.pulseless_since is None
        )

    @property
    def slow(self) -> bool:
        """Whether its threads wait long for their turn."""
        at, lag = self._table.pulse
        return lag > SLOW_LAG or time.monotonic() - at > LATE

    def open(self) -> None:
        """Begin to start the process, and listen to it. What is sent meanwhile is kept for it."""
        self._watch = asyncio.create_task(self._live(), name="runner")

    async def _live(self) -> None:
        try:
            line = await self._start()
        except Exception as error:
            # Not only OSError: a machine without room for another thread raises RuntimeError. A runner whose end stays
            # unnoticed would keep its jobs and its place for ever. One that has started has ended with its socket.
            logger.error("no runner can be started", extra={"error": str(error) or type(error).__name__})
            self.kill("it could not be started")
            await asyncio.sleep(1)
            if self._process is not None:
                await self._process.wait()
            self._on_exit(self, 71)  # EX_OSERR
            return
        await self._listen(line)

    async def _start(self) -> Line:
        self._process, ours = await RunnerProcess.start(self._spec, self._table.fd)
        try:
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: Line(lambda message: self._on_message(self, message), self._no_frame), sock=ours
            )
        except BaseException:
            ours.close()
            raise
        if self.killed_for is not None:
            self.kill(self.killed_for)
        self._line = line
        for message in self._unsent:
            line.tell(message)
        self._unsent.clear()
        return line

    def begin(self, now: float) -> None:
        """It is ready: what it was given before has waited for nothing until now."""
        self.imported = True
        for held in self.jobs.values():
            held.since = now

    async def _listen(self, line: Line) -> None:
        assert self._process is not None
        hearing = asyncio.create_task(line.over.wait())
        ending = asyncio.create_task(self._process.wait())
        await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done() and not (await asyncio.wait({ending}, timeout=KILL_AFTER if self.dismissed else 5))[0]:
            self.to_blame = self.mute = self.to_blame or not self.dismissed
            self.kill("it closed its socket and did not end")
        status = await ending
        await self._process.end_what_is_left(at_once=self.killed_for is not None and not self.dismissed)
        # Every outcome that was sent is heard; only then judge the rest.
        heard, until = -1, time.monotonic() + LAST_WORDS * 25
        while not hearing.done() and heard != line.heard and time.monotonic() < until:
            heard = line.heard
            await asyncio.wait({hearing}, timeout=LAST_WORDS)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        line.close()
        self._on_exit(self, status)

    def _no_frame(self, error: Exception) -> None:
        # User code can write to any descriptor of its process, ours included.
        logger.error("a runner sent what is no frame", exc_info=error, extra={"pid": self.pid})
        self.to_blame = True
        self.kill("it sent what is no frame")

    def send(self, jobs: list[Job], worker: UUID, now: float) -> None:
        """Give it `jobs`, claimed in the name of `worker`. They count as held from here on, lives it to read them or not."""
        self.given += len(jobs)
        first = self._serial + 1
        self._serial += len(jobs)
        self.jobs.update({job.id: Held(job, now, serial) for serial, job in enumerate(jobs, first)})
        for batch in frames.batches(jobs, _job_size):
            self._tell(Run(first, worker, batch))
            first += len(batch)

    def revoke(self, now: float) -> None:
        """Begin to take back what it has not started; `revoked` returns it."""
        self._table.revoked = self._serial
        self._revoked_at = now

    def revoked(self, now: float) -> list[Job]:
        """Return the jobs that are taken back by now, which it will not start any more, and hold them no longer."""
        if self._revoked_at is None or now - self._revoked_at < SETTLED:
            return []
        self._revoked_at = None
        serial = self._table.revoked
        back = [held.job for held in self.unstarted() if held.serial <= serial]
        for job in back:
            del self.jobs[job.id]
        self.given -= len(back)
        self._rest(now)
        return back

    def unstarted(self) -> list[Held]:
        """Return the held jobs that were never started; the others are being executed, or their outcomes are on the way."""
        newest = self._table.newest
        return [held for held in self.jobs.values() if held.serial > newest]

    def cancel(self, ids: list[int], *, stopping: bool = False) -> None:
        """Ask that running jobs stop."""
        self._tell(CancelJobs(ids, stopping))

    def _tell(self, message: ToRunner) -> None:
        if self._line is None:
            self._unsent.append(message)
        else:
            self._line.tell(message)

    def named(self, setback: Setback) -> Setback:
        """Return `setback` with what the log tells of its job, if that is held."""
        held = self.jobs.get(setback.id)
        if held is None:
            return setback
        job = held.job
        return msgspec.structs.replace(
            setback, task=job.task, queue=job.queue, attempt=job.attempt, max_attempts=job.max_attempts
        )

    def take(self, outcomes: list[OutcomeT]) -> list[OutcomeT]:
        """Return those of `outcomes` whose jobs are held, and hold these no longer."""
        jobs, taken = self.jobs, []
        for outcome in outcomes:
            held = jobs.get(outcome.id)
            if held is not None and held.job.started == outcome.started and held.job.claims == outcome.claims:
                del jobs[outcome.id]
                taken.append(outcome)
        self._rest(time.monotonic())
        return taken

    def _rest(self, now: float) -> None:
        if not self.jobs:
            self.idle_since = now

    def feel(self, now: float) -> None:
        """Take note of whether it reacts."""
        at, _ = self._table.pulse
        if not self.imported or now - at < PULSELESS_AFTER:
            self.pulseless_since, self.pulseless_looks = None, 0
            return
        self.pulseless_looks += 1
        if self.pulseless_since is None:
            self.pulseless_since = now

    @property
    def rss(self) -> int:
        """Its resident memory in bytes; 0 when it has none (any more)."""
        return 0 if self.pid is None else resident(self.pid)

    def vouch(self, until: float, now: float) -> None:
        """Let it live until this time of time.monotonic(); 0.0: there is no lease that could end.

        When that is over already, one that has jobs is to end, and one that has none is only to get none: it would else end,
        and its successor, for as long as the database is away.
        """
        self.vouched = until == 0.0 or until > now
        self._table.lease_ends = until if self.vouched or self.jobs else 0.0

    def started(self) -> list[Started]:
        """Return what it is executing, as its slot table says."""
        return self._table.started()

    @property
    def ended_cut_off(self) -> bool:
        """Whether it has ended itself, since it could not send outcomes any more."""
        return self._table.ended_cut_off

    @property
    def newest(self) -> int:
        """The serial of the newest job that it has started."""
        return self._table.newest

    def owes_outcome(self, started: list[Started]) -> bool:
        """Tell whether it has a job that has ended and not been heard of; or is about to start one, for a moment."""
        newest, running = self._table.newest, {slot.id for slot in started}
        return any(held.serial <= newest and job_id not in running for job_id, held in self.jobs.items())

    def listen(self, started: list[Started]) -> int:
        """Return how many looks in a row it has owed an outcome, reacted, and sent nothing."""
        heard = -1 if self._line is None else self._line.heard
        before, self._heard_at_look = self._heard_at_look, heard
        # Most often it has no job that is not running: then nothing else need be asked.
        if heard != before or len(self.jobs) <= len(started) or not self.owes_outcome(started):
            self.mute_looks = 0
        elif self.pulseless_since is None:
            self.mute_looks += 1
        return self.mute_looks

    @property
    def ended_by_lease(self) -> bool:
        """Whether it has ended itself, since its lease was over."""
        return self._table.ended_by_lease

    @property
    def taken_for_over(self) -> float:
        """The end of the lease that it took for over, in time.monotonic() seconds; 0.0: it has not."""
        return self._table.taken_for_over

    def kill(self, reason: str, *, of_worker: bool = False) -> None:
        """End it at once, with the programs that it has started. Its jobs are judged when its end is noticed.

        `of_worker`: not for something that one of its jobs has done.
        """
        if self.killed_for is None:
            self.killed_for, self.of_worker = reason, of_worker
        if self._process is not None:
            self._process.kill()

    def dismiss(self, reason: str) -> None:
        """End it in good order; it has no jobs."""
        self.dismissed = True
        self.killed_for = self.killed_for or reason
        if self._line is not None:
            self._line.close()

    def dump_stacks(self) -> None:
        """Have it print what it is doing to standard error."""
        if self._process is not None and self._process.running:
            stacks.say(f"=== jobq dispatcher {os.getpid()}: runner {self.pid} is asked for its stacks")
            self._process.signal(signal.SIGQUIT)

    async def closed(self) -> None:
        """Wait until the process has ended and `on_exit` has been called; release what it used."""
        if self._watch is not None:
            await self._watch
        self._table.close()
        if self._process is not None:
            self._process.close()

    async def stop(self, *, at_once: bool) -> None:
        """Close the socket, which ends an idle runner in good order, or end it `at_once`; wait for its end."""
        # One that runs jobs may hold its interpreter, and live on after the worker's lock is free.
        if self._line is not None and not at_once and not self.jobs:
            self.dismiss("the worker stops")
        else:
            self.kill("the worker stops", of_worker=True)
        await self.closed()


def _job_size(job: Job) -> int:
    return len(job.args) + len(job.headers)
