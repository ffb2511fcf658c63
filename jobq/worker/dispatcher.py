"""The dispatcher: the process that talks to the database, and runs no user code.

Loops in one event loop, each with its own connection, so that none waits for another's statement: `advance` acknowledges
and claims, `lease` heartbeats and watches the others, `wake` listens, `sentinel` looks for jobs on behalf of all when it is
this worker's turn, `schedules` inserts the jobs of schedules, `chores` maintains, `supervise` watches the runners.
A loop that fails for any other reason than a lost connection ends the worker, loudly: half a worker is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import signal
import time
from collections.abc import Coroutine
from typing import Any

import psycopg

from jobq import output
from jobq.worker import quarantine, stacks
from jobq.worker.advance import Advance
from jobq.worker.brisk import Mode
from jobq.worker.chores import Chores
from jobq.worker.compatibility import stopping_signals
from jobq.worker.database import CHORES, Database
from jobq.worker.errors import ErrorKind, PartFailed, classify
from jobq.worker.keeper import Keeper
from jobq.worker.lanes import warn_of_unknown_queues
from jobq.worker.lease import Lease, wait_or
from jobq.worker.notify import Notifier
from jobq.worker.options import WorkerOptions
from jobq.worker.pool import RunnerPool
from jobq.worker.presence import Presence
from jobq.worker.reaper import reap_orphans
from jobq.worker.rules import declare
from jobq.worker.scheduler import Scheduler
from jobq.worker.sentinel import Sentinel
from jobq.worker.stalls import Looker, Repeats, Stalls, Trouble
from jobq.worker.verdicts import STOPPING
from jobq.worker.vitals import Vitals
from jobq.worker.wake import Listener

logger = logging.getLogger("jobq.worker")

SUPERVISE_INTERVAL = 0.1
# How often a worker looks which chores are due, and how often while there are jobs that expire.
CHORES_INTERVAL = 60.0
CHORES_OFTEN = 15.0
# What running jobs get, once told to stop, before their runners are killed.
CANCEL_GRACE = 2.0
# How long a worker that stops goes on trying to write down the last outcomes.
LAST_WRITES = 10.0


class Dispatcher:
    """One worker, from its start to its end."""

    def __init__(self, options: WorkerOptions, version: str, notifier: Notifier | None = None) -> None:
        self._options = options
        self._settings = options.settings
        self._pool: RunnerPool
        self._advance: Advance
        self._listener: Listener
        self._keeper: Keeper
        self._sentinel: Sentinel
        self._lease = Lease(options, version)
        self._chores = Chores(options)
        self._presence = Presence(options, notifier or Notifier(None), self)
        self._vitals = self._presence.vitals
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._signals = False
        """Whether a signal to stop has come."""
        self._started = asyncio.Event()
        self._database = Database(options.settings)
        self._scheduler = Scheduler(options, self._database, lambda: self._lease.worker)
        self._repeats = Repeats()
        self.stalls = Stalls({"runners": self._no_runner})

    async def run(self) -> None:
        """Work until told to stop (or, with `drain`, until nothing is left).

        Raises AppImportError, psycopg.OperationalError when the database cannot be reached at the start, and whatever bug
        of ours ended a loop.
        """
        self._pool = RunnerPool(
            self._options,
            on_success=lambda successes: self._advance.ended.succeeded(successes),  # noqa: PLW0108  (it is made below)
            on_setback=lambda setback: self._advance.ended.set_back(setback),  # noqa: PLW0108  (it is made below)
            on_recorded=lambda recorded: self._advance.recorded(recorded),  # noqa: PLW0108  (it is made below)
            on_ready=lambda: self._advance.ready(),  # noqa: PLW0108  (it is made below)
            on_progress=lambda progress: self._advance.progressed(progress),  # noqa: PLW0108  (it is made below)
            on_quarantine=self._quarantined,
            problems=self._lease.problems,
        )
        self._advance = Advance(
            self._options,
            self._pool,
            self._lease,
            self._vitals.claims,
            self._presence.metrics,
            database=self._database,
            listening=lambda: self._listener.connected and self._sentinel.hearing,
            problems=self._lease.problems,
        )
        self._scheduler.problems = self._lease.problems
        self._sentinel = Sentinel(self._options, self._database, self._advance, lambda: self._pool.queues)
        self._listener = Listener(self._settings, self._notified, self._database)
        self._keeper = Keeper(
            self._options,
            database=self._database,
            lease=self._lease,
            pool=self._pool,
            advance=self._advance,
            sentinel=self._sentinel,
            pulse=self._vitals.heartbeats,
            on_asked=self._asked,
        )
        loop = asyncio.get_running_loop()
        signals = stopping_signals()
        for number in signals:
            loop.add_signal_handler(number, self._signalled, number)
        stacks.install_in_loop(loop, self._pool.dump_stacks)
        scout = asyncio.create_task(self._keeper.scout(self._started), name="scout")
        reaper = asyncio.create_task(reap_orphans(), name="reaper")
        try:
            async with self._presence:
                try:
                    with Looker(self.stalls):
                        await self._first_chores()
                        await self._until_stopped(self._pool.start())
                        self._started.set()
                        await scout
                        if not self._stop.is_set():
                            await self._work()
                finally:
                    self._started.set()
                    await asyncio.gather(scout, return_exceptions=True)
                    await self._keeper.close()
                    await self._close_pool()
        finally:
            reaper.cancel()
            stacks.remove_from_loop(loop)
            for number in signals:
                loop.remove_signal_handler(number)

    def observe(self, vitals: Vitals) -> None:
        """Write down what the parts count, for readers of `vitals`."""
        pool, advance = self._pool, self._advance
        vitals.slots, vitals.running = pool.slots, pool.held
        vitals.runners_ready, vitals.runners_wanted = pool.runners_ready, self._options.processes
        vitals.runner_deaths = pool.deaths
        vitals.finished, vitals.unrecorded, vitals.held = advance.ended.finished, len(advance.ended), advance.held
        vitals.quiet = advance.quiet
        before, vitals.log_dropped = vitals.log_dropped, output.dropped()
        if vitals.log_dropped > before:
            # Noted while lines are dropped, and so forgotten when they no longer are.
            self._lease.problems.note(
                "write the log", f"{vitals.log_dropped} lines were dropped: the reader of the output does not read it"
            )
        vitals.problems = self._lease.problems.rows()
        vitals.listening(self._listener.connected, polling=self._listener.polling)
        vitals.listener_errors = self._listener.losses
        vitals.brisk, vitals.sentinel = self._sentinel.mode is not Mode.QUIET, self._sentinel.active

    def tasks(self) -> list[str]:
        """Return the names of the tasks that the runners have imported."""
        return self._pool.tasks

    def _notified(self, payload: str) -> None:
        if payload in ("cancel", "workers"):
            # Which worker is meant, and what it is to do, stands in the rows, which the next heartbeat reads.
            self._keeper.beat_at_once()
            return
        if payload == "schedules":
            self._scheduler.poke()
            return
        if not payload:
            # Some may have been missed, a sentinel's last word among them.
            self._keeper.beat_at_once()
            self._scheduler.poke()
        kind, _, what = payload.partition(" ")
        if kind == "wake":
            self._sentinel.told(what)
            return
        if kind == "below":
            run_at, _, queue = what.partition(" ")
            # Any client of the database can send any notification.
            if re.fullmatch(r"-?[0-9]{1,18}", run_at):
                self._lowered(queue, int(run_at))
            return
        if kind in ("insert", "many"):
            self._sentinel.inserted(what or None)
        elif kind == "due":
            # From the sentinel, which calls itself sooner.
            if self._sentinel.active:
                return
            payload = f"insert {what}"
        self._advance.notified(payload)

    def _lowered(self, queue: str, run_at: int) -> None:
        """Jobs of `queue` can be claimed again at their old places, the first at this run_at in microseconds."""
        self._sentinel.lowered(queue, run_at)
        self._advance.lowered(queue, run_at)

    def _asked(self, what: str | None) -> None:
        """What an operator wants of this worker, heard at each heartbeat. A stop is for good."""
        if self._stop.is_set():
            return
        if what == "stop":
            logger.info("stopping, as an operator has asked", extra={"running": self._pool.held})
            self._begin_to_stop()
        elif (quiet := what == "quiet") != self._advance.quiet:
            logger.info(
                "claiming nothing, as an operator has asked" if quiet else "claiming again",
                extra={"worker": str(self._lease.worker), "running": self._pool.held},
            )
            self._keeper.state = "quiet" if quiet else "running"
            self._advance.be_quiet(quiet)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._signals:
            logger.warning("second signal: stopping at once", extra={"signal": name})
            self._hurry.set()
            return
        # An operator's word and then a service manager's is no reason to hurry.
        self._signals = True
        logger.info("stopping", extra={"signal": name, "running": self._pool.held})
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        self._stop.set()
        self._presence.stopping()
        self._advance.poke()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            await task
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _work(self) -> None:
        await self._until_stopped(self._prepare())
        if self._stop.is_set():
            await self._leave()
            return
        logger.info(
            "working",
            extra={
                "worker": str(self._lease.worker),
                "app": self._options.app,
                "tasks": len(self._pool.tasks),
                "slots": self._options.concurrency * self._options.processes,
                "queues": self._options.queues_text,
                "queue_order": str(self._options.queues_by),
            },
        )
        if not self._pool.tasks:
            logger.warning(
                "the application has no task, so this worker can run no job: import the modules that define them in the "
                "module that makes the JobQ, or name another application",
                extra={"app": self._options.app},
            )
        self.stalls.watch(
            {
                "claims": self._advance.trouble,
                "outcomes": self._advance.outcomes_trouble,
                "heartbeats": self._keeper.trouble,
                "notifications": self._listener.trouble,
                "schedules": self._scheduler.trouble,
            }
        )
        self._presence.working()
        self._scheduler.declared = self._pool.schedules
        helpers = [
            asyncio.create_task(self._keeper.run(), name="lease"),
            asyncio.create_task(self._listener.run(), name="wake"),
            asyncio.create_task(self._sentinel.run(), name="sentinel"),
            asyncio.create_task(self._scheduler.run(), name="schedules"),
            asyncio.create_task(self._do_chores(), name="chores"),
            asyncio.create_task(self._supervise(), name="supervise"),
        ]
        advance = asyncio.create_task(self._advance.run(self._stop), name="advance")
        try:
            await asyncio.wait([*helpers, advance], return_when=asyncio.FIRST_COMPLETED)
            if advance.done() and not advance.exception():
                await self._finish(helpers)
            for task in [advance, *helpers]:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    logger.critical("a part of the worker failed", exc_info=error, extra={"part": task.get_name()})
                    if isinstance(error, psycopg.Error):
                        # At its start such an error is about how it was set up; now it is not.
                        raise PartFailed(f"{task.get_name()}: {error}") from error
                    raise error
        finally:
            for task in [advance, *helpers]:
                task.cancel()
            await asyncio.gather(advance, *helpers, return_exceptions=True)
            await self._leave()

    async def _prepare(self) -> None:
        """Set how groups run, as the application declares it, and register, before anything is claimed."""
        try:
            await warn_of_unknown_queues(await self._keeper.connected(), self._options, self._pool.queues)
        except psycopg.Error as error:
            if classify(error) is ErrorKind.CONNECTION:
                raise
            # It is a warning only.
            self._repeats.warn("the names of the queues cannot be checked", error)
        if self._pool.rules:
            async with await self._database.connect("rules", CHORES) as connection:
                await declare(connection, self._settings.schema, self._pool.rules)
        await self._keeper.register()

    # --- the loops --------------------

    def _quarantined(self, task: str, deaths: int) -> None:
        if deaths:
            self._lease.problems.note(
                quarantine.PROBLEM, f"its jobs ended {deaths} runners, so they run alone", task=task
            )
        else:
            self._lease.problems.clear(quarantine.PROBLEM, task=task)

    async def _supervise(self) -> None:
        while True:
            self._pool.supervise(self._lease.last_beat + self._lease.fence_after)
            silent = time.monotonic() - self._lease.last_beat
            if silent > self._lease.fence_after and not self._advance.held:
                logger.error("no heartbeat for too long: killing the running jobs", extra={"silent": round(silent, 1)})
                self._advance.hold("no heartbeat")
                self._pool.kill_all("no heartbeat for too long")
            elif self._advance.held == "no heartbeat" and silent < self._options.heartbeat_interval:
                self._advance.release_hold()
            await asyncio.sleep(SUPERVISE_INTERVAL)

    async def _do_chores(self) -> None:
        while True:
            # Just after an exact minute, when the rollup is due, and not all workers at once.
            interval = CHORES_OFTEN if self._chores.often else CHORES_INTERVAL
            await asyncio.sleep(interval - time.time() % interval + random.uniform(3, 10))
            try:
                await self._chores_once()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._repeats.warn("no chores", error)

    async def _first_chores(self) -> None:
        """Do what is due before anything is claimed. Raises psycopg.Error when the database or the schema does not fit."""
        try:
            await self._chores_once(register=True)
        except psycopg.Error as error:
            if classify(error) is ErrorKind.CONNECTION or (error.sqlstate or "")[:2] in {"42", "3F", "3D", "28"}:
                raise
            # A row or a lock in its way: it is done later.
            self._repeats.warn("no chores", error)

    async def _chores_once(self, *, register: bool = False) -> None:
        connection = await self._database.connect("chores", CHORES)
        async with connection:
            if register:
                await self._chores.register(connection)
            # At the start the runners wait for this.
            await self._chores.run_due(connection, self._lease.worker, **({"share": 1.0} if register else {}))

    # --- what stands still --------------------

    def _no_runner(self) -> Trouble | None:
        cause = self._pool.unready
        return Trouble(cause) if cause is not None and not self._stop.is_set() else None

    # --- the end --------------------

    async def _finish(self, helpers: list[asyncio.Task[None]]) -> None:
        """Let running jobs end, then make them; heartbeats go on until the last one is released."""
        self._keeper.state = "draining"
        self._presence.stopping()
        deadline = time.monotonic() + self._options.shutdown_timeout
        self._advance.leave()
        self._pool.drain()
        await self._sentinel.leave()
        while self._pool.held and time.monotonic() < deadline and not self._hurry.is_set():
            await self._flush(deadline)
            await wait_or(self._hurry, 0.02)
            if any(task.done() for task in helpers):
                return
        if self._pool.held:
            logger.warning("stopping jobs that have not ended in time", extra={"jobs": self._pool.held})
            self._pool.cancel_all()
            deadline = time.monotonic() + (0.2 if self._hurry.is_set() else CANCEL_GRACE)
            while self._pool.held and time.monotonic() < deadline:
                await self._flush(deadline)
                await asyncio.sleep(0.02)
            self._pool.kill_all(STOPPING)
            while self._pool.held:
                self._pool.changed.clear()
                await wait_or(self._pool.changed, 0.5)
        deadline = time.monotonic() + LAST_WRITES
        while not self._advance.finished and time.monotonic() < deadline:
            await self._flush(deadline)
        if len(self._advance.ended):
            logger.error(
                "outcomes could not be recorded: those jobs run again", extra={"jobs": len(self._advance.ended)}
            )

    async def _close_pool(self) -> None:
        """End the runners in good order, for as long as their applications take within bounds; or at once if told to hurry."""
        closing = asyncio.ensure_future(self._pool.close(at_once=self._hurry.is_set()))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({closing, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not closing.done():
            self._pool.end_all()
        await closing

    async def _flush(self, deadline: float) -> None:
        """Record a batch of what has ended, unless that takes until `deadline`, or a second signal comes."""
        flush = asyncio.ensure_future(self._advance.flush())
        hurry = asyncio.ensure_future(self._hurry.wait())
        waits = {flush} if self._hurry.is_set() else {flush, hurry}
        await asyncio.wait(waits, timeout=max(0.1, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not flush.done() and self._hurry.is_set():
            await asyncio.wait({flush}, timeout=2.0)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        if not flush.cancelled() and (error := flush.exception()) is not None:
            raise error

    async def _leave(self) -> None:
        await self._keeper.leave()
        await self._advance.close()
        logger.info("stopped", extra={"finished": self._advance.ended.finished})
