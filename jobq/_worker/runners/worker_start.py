"""Choice of the runner that calls the application's functions for the start of the worker.

The first runner calls them, before any runner gets a job. All runners start at the same time.
Runners that are ready sooner wait for the first one.
"""

from __future__ import annotations

from jobq._worker.ipc.messages import RunnerReady
from jobq._worker.runners.process import RunnerProcess


class WorkerStart:
    """The start of one worker. The object belongs to the dispatcher's event loop."""

    def __init__(self) -> None:
        self._starter: RunnerProcess | None = None
        self._done = False
        self._waiting: list[tuple[RunnerProcess, RunnerReady]] = []

    @property
    def is_due(self) -> bool:
        """Whether the next runner must call the functions: no runner has, and none is about to."""
        return not self._done and self._starter is None

    def started(self, child: RunnerProcess) -> None:
        """Note that a runner was started. While `is_due`, this runner calls the functions."""
        if self.is_due:
            self._starter = child

    def succeeded(self) -> list[tuple[RunnerProcess, RunnerReady]]:
        """Note that the functions have returned; return the runners that accept jobs from now on."""
        self._done, self._starter = True, None
        found, self._waiting = self._waiting, []
        return found

    def ready(self, child: RunnerProcess, hello: RunnerReady) -> list[tuple[RunnerProcess, RunnerReady]]:
        """Note that a runner is ready; return it if it accepts jobs from now on."""
        if self._done:
            return [(child, hello)]
        self._waiting.append((child, hello))
        return []

    def ended(self, child: RunnerProcess) -> None:
        """Note that a runner has ended.

        If it failed to call the functions, the next runner calls them.
        """
        self._waiting = [pair for pair in self._waiting if pair[0] is not child]
        if child is self._starter:
            self._starter = None
