"""How a worker reports its health to the outside.

Once a second the monitor samples the state, notifies systemd, and runs the watchdog. It covers the
worker's whole life, from before the import of the application until after the last outcome is
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Protocol

from jobq._worker.health.http import HealthServer
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.probes import Health
from jobq._worker.health.state import WorkerHealth
from jobq._worker.health.systemd import Notifier
from jobq._worker.health.watchdog import Watchdog
from jobq._worker.options import WorkerOptions

logger = logging.getLogger("jobq.worker")

BEAT = 1.0
STATUS_EVERY = 2.0
# Each extension requests this many more seconds and is renewed long before they are over. So a
# worker that freezes during its start or stop is still killed soon.
EXTENSION = 15.0
# Seconds for a start beyond two imports (one that hangs and is noticed, and the next one), for the
# answers of the database.
START_BEYOND = 30.0
# Seconds for a stop beyond `shutdown_timeout`: for cancelled jobs, last outcomes, the ends of the
# runners, and a busy machine.
STOP_BEYOND = 30.0


class Worker(Protocol):
    """The facts that the monitor reads from a worker, because no event reports them."""

    def observe(self, vitals: WorkerHealth) -> None:
        """Fill in the values that are counted elsewhere."""

    def tasks(self) -> list[str]:
        """Return the names of the registered tasks."""


class HealthMonitor:
    """The health monitor of one worker, as an asynchronous context manager."""

    def __init__(self, options: WorkerOptions, notifier: Notifier, worker: Worker) -> None:
        self.vitals = WorkerHealth()
        self.metrics: Metrics | None = None
        self._options = options
        self._notifier = notifier
        self._worker = worker
        self._watch = Watchdog(options.settings, self.vitals)
        self._server: HealthServer | None = None
        self._task: asyncio.Task[None] | None = None
        self._fed_at = self._said_at = 0.0
        if options.health_address is not None:
            with contextlib.suppress(ModuleNotFoundError):
                self.metrics = Metrics(self.vitals, self._observe, worker.tasks)
            health = Health(self.vitals, self.metrics, self._observe)
            self._server = HealthServer(options.health_address, health.answer)

    async def __aenter__(self) -> HealthMonitor:
        """Start the monitor. Raises ConfigurationError if the health address cannot be used."""
        if self._server is not None:
            await self._server.start()
        self._task = asyncio.create_task(self._run(), name="presence")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the monitor, after everything else."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._watch.close()
        if self._server is not None:
            await self._server.close()
        self._notifier.close()

    # --- events from the dispatcher --------------------

    def working(self) -> None:
        """Note that the worker takes jobs from now on.

        A runner is ready, and the worker is registered.
        """
        self.vitals.claims.turn()
        self.vitals.heartbeats.turn()
        if self.vitals.phase == "starting":
            self.vitals.phase = "working"
            self._observe()
            self._notifier.tell(READY=1, STATUS=self.vitals.line())

    def stopping(self) -> None:
        """Note that the worker is stopping."""
        if self.vitals.phase == "stopping":
            return
        self.vitals.begin_to_stop()
        self._observe()
        self._notifier.tell(STOPPING=1, STATUS=self.vitals.line())
        self._extend()

    # --- the beat --------------------

    async def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:
                # It is better to continue with less information than to die. If the watchdog is not
                # fed, systemd acts.
                logger.exception("the worker's state cannot be shown")
            await asyncio.sleep(min(BEAT, (self._notifier.watchdog or BEAT * 8) / 8))

    def _beat(self) -> None:
        now = time.monotonic()
        self._observe()
        self.vitals.sample()
        self._watch.look()
        watchdog = self._notifier.watchdog
        if watchdog is not None and self.vitals.stuck is None and now - self._fed_at >= watchdog / 2 - watchdog / 16:
            self._notifier.tell(WATCHDOG=1)
            self._fed_at = now
        if now - self._said_at >= STATUS_EVERY:
            self._said_at = now
            self._notifier.tell(STATUS=self.vitals.line())
            self._extend()

    def _extend(self) -> None:
        """Request more time to start or to stop, within our own limits for it."""
        vitals = self.vitals
        match vitals.phase:
            case "starting":
                until = vitals.started + (2 * self._options.import_timeout + START_BEYOND)
            case "stopping":
                until = (vitals.stopping_since or 0.0) + self._options.shutdown_timeout + STOP_BEYOND
            case "working":
                return
        left = min(EXTENSION, until - time.monotonic())
        if left > 0:
            self._notifier.tell(EXTEND_TIMEOUT_USEC=int(left * 1e6))

    def _observe(self) -> None:
        self._worker.observe(self.vitals)
