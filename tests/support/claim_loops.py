"""A claim loop by itself, without a dispatcher around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.ipc.messages import Job
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.events import RunnerEvents
from jobq._worker.runners.pool import RunnerPool


@asynccontextmanager
async def running(loop: ClaimLoop) -> AsyncIterator[asyncio.Task[None]]:
    """Run `loop` as a task, and end it in good order. Raises what it raises. May be used again for the same loop."""
    loop.stop.clear()
    # No one heartbeats here, and on a busy machine a test takes longer than the lease.
    loop.gate.lease.last_beat = time.monotonic() + 3600
    task = asyncio.create_task(loop.run())
    try:
        yield task
    finally:
        loop.stop.set()
        loop.wake()
        await task
        await loop.close()


class Slots(RunnerPool):
    """Has slots, and starts no process: it notes what it is given, and holds it until `free`."""

    ready = True
    slots = 1
    load = held = 0

    def __init__(self, options: WorkerOptions) -> None:
        events = RunnerEvents()
        super().__init__(
            options,
            on_success=events.succeeded,
            on_setback=events.set_back,
            on_recorded=events.recorded,
            on_progress=events.progressed,
            on_ready=events.ready,
        )
        self.given: list[Job] = []

    def room(self, prefetch: int, soon: float = 0.0) -> int:
        return self.slots - self.load

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        return True

    def give(self, jobs: Any, worker: Any) -> None:
        self.given += jobs
        self.load = self.held = self.held + len(jobs)

    def free(self) -> None:
        """All that it was given has ended."""
        self.load = self.held = 0
