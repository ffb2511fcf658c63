"""Keeps the number of runners at the wanted number.

Missing runners are started. While starts fail, the pauses between them grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.runner_set import RunnerSet
from jobq.retry import Backoff

logger = logging.getLogger("jobq.worker")

_RESTART = Backoff(base=0.2, cap=30)
# Seconds before the next try, after a runner that the system could not start.
_START_AGAIN = 1.0


def pause_before_start(failed_starts: int) -> float:
    """Return the seconds to wait before the next start.

    Args:
        failed_starts: Number of consecutive runners that ended before they were ready.
    """
    return _RESTART.longest(min(failed_starts - 1, 10)) if failed_starts > 1 else 0.0


class RunnerScaler:
    """Starts the ordinary runners of `runners` with `start_runner`.

    The object belongs to the dispatcher's event loop.
    """

    def __init__(self, runners: RunnerSet, start_runner: Callable[[], RunnerProcess]) -> None:
        self._runners = runners
        self._start_runner = start_runner
        self._scaling: asyncio.Task[None] | None = None
        self.stopped = False
        """Whether no more runners may be started."""

    def ensure_count(self) -> None:
        """Begin to start runners if there are too few that stay."""
        runners = self._runners
        fresh = sum(runner.needs_replacement is None and runner.draining is None for runner in runners.ordinary)
        missing = runners.wanted - fresh
        if missing > 0 and not self.stopped and (self._scaling is None or self._scaling.done()):
            self._scaling = asyncio.ensure_future(self.scale_up(missing))

    async def scale_up(self, number: int) -> None:
        """Start `number` runners. If the last runners ended before they were ready, wait first."""
        runners = self._runners
        if delay := pause_before_start(runners.failed_starts):
            extra = {"died": runners.failed_starts, "delay": delay}
            logger.warning("waiting before the next runner is started", extra=extra)
            await asyncio.sleep(delay)
        for _ in range(number):
            if self.stopped:
                return
            try:
                runners.ordinary.append(self._start_runner())
            except OSError as error:
                logger.error("no runner can be started", extra={"error": str(error)})
                await asyncio.sleep(_START_AGAIN)

    async def close(self) -> None:
        """Start no more runners, and cancel a start under way. Calling it again is no error."""
        self.stopped = True
        if self._scaling is not None:
            self._scaling.cancel()
            await asyncio.gather(self._scaling, return_exceptions=True)
