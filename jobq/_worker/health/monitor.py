"""How a worker shows itself: once a second the vitals are taken, systemd is told, the watch looks.

Stands around a worker's whole life, from before the import of the application to after the last outcome is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Protocol

from jobq.worker.health import Health
from jobq.worker.httpd import HealthServer
from jobq.worker.metrics import Metrics
from jobq.worker.notify import Notifier
from jobq.worker.options import WorkerOptions
from jobq.worker.vitals import Vitals
from jobq.worker.watch import Watch

logger = logging.getLogger("jobq.worker")

BEAT = 1.0
STATUS_EVERY = 2.0
# Each extension asks for this much more, and is renewed long before it is over: a worker that freezes while it starts or
# stops is still killed soon.
EXTENSION = 15.0
# What a start gets beyond two imports (one that does not end, noticed and begun again): the database's answers around them.
START_BEYOND = 30.0
# What a stop needs beyond `shutdown_timeout`: cancelled jobs, last outcomes, the runners' ends, and a busy machine.
STOP_BEYOND = 30.0


class Worker(Protocol):
    """What presence asks of a worker: to write down what can only be asked for, not told."""

    def observe(self, vitals: Vitals) -> None:
        """Fill in what is counted elsewhere."""

    def tasks(self) -> list[str]:
        """Return the names of the registered tasks."""


class Presence:
    """One worker's, as an asynchronous context."""

    def __init__(self, options: WorkerOptions, notifier: Notifier, worker: Worker) -> None:
        self.vitals = Vitals()
        self.metrics: Metrics | None = None
        self._options = options
        self._notifier = notifier
        self._worker = worker
        self._watch = Watch(options.settings, self.vitals)
        self._server: HealthServer | None = None
        self._task: asyncio.Task[None] | None = None
        self._fed_at = self._said_at = 0.0
        if options.health_address is not None:
            with contextlib.suppress(ModuleNotFoundError):
                self.metrics = Metrics(self.vitals, self._observe, worker.tasks)
            health = Health(self.vitals, self.metrics, self._observe)
            self._server = HealthServer(options.health_address, health.answer)

    async def __aenter__(self) -> Presence:
        """Begin. Raises ConfigurationError when the health address cannot be listened on."""
        if self._server is not None:
            await self._server.start()
        self._task = asyncio.create_task(self._run(), name="presence")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, last of all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._watch.close()
        if self._server is not None:
            await self._server.close()
        self._notifier.close()

    # --- what the dispatcher tells --------------------

    def working(self) -> None:
        """A runner is ready and the worker is registered: it takes jobs from now on."""
        self.vitals.claims.turn()
        self.vitals.heartbeats.turn()
        if self.vitals.phase == "starting":
            self.vitals.phase = "working"
            self._observe()
            self._notifier.tell(READY=1, STATUS=self.vitals.line())

    def stopping(self) -> None:
        """The worker is on its way out."""
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
                # Half blind is better than dead; a watchdog that is not fed will speak for itself.
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
        """Ask for more time to start or to stop, for as long as our own limits allow that to take."""
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
