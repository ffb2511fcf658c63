"""The dispatcher: the process that talks to the database and runs no user code.

Its loops (`Loops`) share one event loop. Each has its own connection, so no loop waits for
another's statement. The loops are the heartbeat, the listener, the lead poller (which polls on
behalf of all workers if this worker has that role), schedules, maintenance, the fence (which
watches the runners), and the claim loop. If a loop fails for any reason other than a lost
connection, the worker ends with an error: a worker with missing parts is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import psycopg

from jobq._core import output
from jobq._core.worker_problems import RUNS_ALONE
from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.compatibility import stopping_signals
from jobq._worker.database import Database
from jobq._worker.database_errors import ErrorKind, PartFailed, classify
from jobq._worker.fence import FenceLoop
from jobq._worker.health import stacks
from jobq._worker.health.monitor import HealthMonitor
from jobq._worker.health.stalls import Looker, RateLimitedLog, StallDetector
from jobq._worker.health.state import WorkerHealth
from jobq._worker.health.systemd import Notifier
from jobq._worker.heartbeat import HeartbeatLoop
from jobq._worker.lanes.queue_names import warn_of_unknown_queues
from jobq._worker.lease import Lease
from jobq._worker.limited.declared_rules import declare
from jobq._worker.loops import Loops
from jobq._worker.maintenance.loop import MaintenanceLoop
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.processes.reaper import reap_orphans
from jobq._worker.runners.events import RunnerEvents
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.shutdown import Shutdown
from jobq._worker.sources.scheduler import Scheduler
from jobq._worker.timeouts import MAINTENANCE
from jobq._worker.wakeup.listener import Listener
from jobq._worker.wakeup.policy import NotifyMode
from jobq._worker.wakeup.poller import LeadPoller
from jobq._worker.wakeup.state import WakeupState
from jobq._worker.workflows.loop import WorkflowLoop

logger = logging.getLogger("jobq.worker")


class Dispatcher:
    """One worker, from start to end."""

    def __init__(self, options: WorkerOptions, version: str, notifier: Notifier | None = None) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._signals = False
        """Whether a stop signal has come."""
        self._started = asyncio.Event()
        self._repeats = RateLimitedLog()
        # Each part is created after the parts that it needs. Reports to later parts go through
        # `events` and `loops`.
        self._database = database = Database(options.settings)
        self._lease = lease = Lease(options, version)
        self._presence = HealthMonitor(options, notifier or Notifier(None), self)
        self.vitals = self._presence.vitals
        self._wakeups = wakeups = WakeupState()
        events = RunnerEvents()
        self.loops = Loops()
        self._pool = pool = RunnerPool(
            options,
            on_success=events.succeeded,
            on_setback=events.set_back,
            on_recorded=events.recorded,
            on_ready=events.ready,
            on_progress=events.progressed,
            on_quarantine=self._quarantined,
            problems=lease.problems,
        )
        self._claim_loop = claim_loop = ClaimLoop(
            options,
            pool,
            lease,
            self.vitals.claims,
            self._presence.metrics,
            stop=self._stop,
            database=database,
            wakeups=wakeups,
            problems=lease.problems,
        )
        events.subscribe(
            succeeded=claim_loop.outcomes.succeeded,
            set_back=claim_loop.outcomes.set_back,
            recorded=claim_loop.claimer.recorded,
            progressed=claim_loop.sync.progressed,
            ready=claim_loop.finder.runner_ready,
        )
        self._poller = LeadPoller(options, database, claim_loop, pool.application, wakeups)
        self._heartbeat = HeartbeatLoop(
            options,
            database=database,
            lease=lease,
            pool=pool,
            claim_loop=claim_loop,
            poller=self._poller,
            pulse=self.vitals.heartbeats,
            on_asked=self._asked,
        )
        self._scheduler = Scheduler(options, database, lease)
        self._maintenance = MaintenanceLoop(database, Maintenance(options), lease)
        fence = FenceLoop(pool, lease, claim_loop.gate, heartbeat_interval=options.heartbeat_interval, stop=self._stop)
        # The lead poller is notified of a job before its own claim loop is.
        self.loops.add(
            self._heartbeat,
            Listener(options.settings, self.loops.notified, database=database, wakeups=wakeups),
            self._poller,
            self._scheduler,
            self._maintenance,
            WorkflowLoop(options, database, wakeups, lease.problems),
            fence,
            claim_loop,
        )
        self._shutdown = Shutdown(
            patience=options.shutdown_timeout,
            pool=pool,
            loops=self.loops,
            claim_loop=claim_loop,
            heartbeat=self._heartbeat,
            poller=self._poller,
            hurry=self._hurry,
        )
        self.stalls = StallDetector({fence.name: fence.stall})

    async def run(self) -> None:
        """Work until asked to stop (or, with `drain`, until nothing is left).

        Raises AppImportError, psycopg.OperationalError if the database cannot be reached at the
        start, and any bug of jobq that ended a loop.
        """
        loop = asyncio.get_running_loop()
        signals = stopping_signals()
        for number in signals:
            loop.add_signal_handler(number, self._signalled, number)
        stacks.install_in_loop(loop, self._pool.dump_stacks)
        scout = asyncio.create_task(self._heartbeat.scout(self._started), name="scout")
        reaper = asyncio.create_task(reap_orphans(), name="reaper")
        try:
            async with self._presence:
                try:
                    with Looker(self.stalls):
                        await self._maintenance.first()
                        await self._until_stopped(self._pool.start())
                        self._started.set()
                        await scout
                        if not self._stop.is_set():
                            await self._work()
                finally:
                    self._started.set()
                    try:
                        await asyncio.gather(scout, return_exceptions=True)
                        await self.loops.close()
                    finally:
                        # Whatever happened before: no runner outlives its dispatcher.
                        await self._shutdown.close_pool()
        finally:
            reaper.cancel()
            stacks.remove_from_loop(loop)
            for number in signals:
                loop.remove_signal_handler(number)

    def observe(self, vitals: WorkerHealth) -> None:
        """Copy the counters of all parts to `vitals` for its readers."""
        pool, outcomes, gate, wakeups = self._pool, self._claim_loop.outcomes, self._claim_loop.gate, self._wakeups
        vitals.slots, vitals.running = pool.slots, pool.held
        vitals.runners_ready, vitals.runners_wanted = pool.runners_ready, self._options.processes
        vitals.runner_deaths = pool.deaths
        vitals.finished, vitals.unrecorded, vitals.held = outcomes.finished, len(outcomes), gate.suspended
        vitals.quiet = gate.paused
        before, vitals.log_dropped = vitals.log_dropped, output.dropped()
        if vitals.log_dropped > before:
            # Recorded while lines are dropped, and forgotten once no more are.
            self._lease.problems.note(
                "write the log", f"{vitals.log_dropped} lines were dropped: the reader of the output does not read it"
            )
        vitals.problems = self._lease.problems.rows()
        vitals.stalls = dict(self.stalls.current)
        vitals.listening(wakeups.connected, polling=wakeups.polling)
        vitals.listener_errors = wakeups.losses
        vitals.silent_inserts, vitals.leading = wakeups.mode is not NotifyMode.NOTIFY, wakeups.leading

    def tasks(self) -> list[str]:
        """Return the names of the tasks that the runners have imported."""
        return self._pool.application.tasks

    def _asked(self, what: str | None) -> None:
        """React to the state that an operator requests at each heartbeat. A stop is permanent."""
        if self._stop.is_set():
            return
        if what == "stop":
            logger.info("stopping, as an operator has asked", extra={"running": self._pool.held})
            self._begin_to_stop()
        elif (quiet := what == "quiet") != self._claim_loop.gate.paused:
            logger.info(
                "claiming nothing, as an operator has asked" if quiet else "claiming again",
                extra={"worker": str(self._lease.worker), "running": self._pool.held},
            )
            self._heartbeat.state = "quiet" if quiet else "running"
            self._claim_loop.gate.pause(quiet)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._signals:
            logger.warning("second signal: stopping at once", extra={"signal": name})
            self._hurry.set()
            return
        # An operator's request followed by a service manager's signal is no reason to hurry.
        self._signals = True
        logger.info("stopping", extra={"signal": name, "running": self._pool.held})
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        self._stop.set()
        self._presence.stopping()
        self._claim_loop.wake()

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
            await self._shutdown.leave()
            return
        logger.info(
            "working",
            extra={
                "worker": str(self._lease.worker),
                "app": self._options.app,
                "tasks": len(self._pool.application.tasks),
                "slots": self._options.concurrency * self._options.processes,
                "queues": self._options.queues_text,
                "queue_order": str(self._options.queues_by),
            },
        )
        if not self._pool.application.tasks:
            logger.warning(
                "the application has no task, so this worker can run no job: import the modules that define them in the "
                "module that makes the JobQ, or name another application",
                extra={"app": self._options.app},
            )
        self.watch()
        self._presence.working()
        self._scheduler.declarations.declared = self._pool.application.schedules
        self.loops.start()
        try:
            await self.loops.first_end()
            if self.loops.has_ended(self._claim_loop.name):
                self._presence.stopping()
                await self._shutdown.finish()
            if (failed := self.loops.failure()) is not None:
                part, error = failed
                logger.critical("a part of the worker failed", exc_info=error, extra={"part": part})
                if isinstance(error, psycopg.Error):
                    # At the start, such an error concerns the set-up. Now it does not.
                    raise PartFailed(f"{part}: {error}") from error
                raise error
        finally:
            await self.loops.cancel()
            await self._shutdown.leave()

    def watch(self) -> None:
        """From now on, report stalled loops and outcomes that are not written."""
        self.stalls.watch({**self.loops.stalls, "outcomes": self._claim_loop.claimer.stall})

    async def _prepare(self) -> None:
        """Set the declared group rules, and register, before anything is claimed."""
        try:
            await warn_of_unknown_queues(
                await self._heartbeat.connected(), self._options, self._pool.application.queues
            )
        except psycopg.Error as error:
            if classify(error) is ErrorKind.CONNECTION:
                raise
            # This only gives a warning.
            self._repeats.warn("the names of the queues cannot be checked", error)
        if self._pool.application.rules:
            async with await self._database.connect("rules", MAINTENANCE) as connection:
                await declare(connection, self._options.settings.schema, self._pool.application.rules)
        await self._heartbeat.register()

    def _quarantined(self, task: str, deaths: int) -> None:
        if deaths:
            self._lease.problems.note(RUNS_ALONE, f"its jobs ended {deaths} runners, so they run alone", task=task)
        else:
            self._lease.problems.clear(RUNS_ALONE, task=task)
