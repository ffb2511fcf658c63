"""Events from the runner pool to the parts that handle its reports.

Those parts need the pool, so the pool is created before them.
"""

from __future__ import annotations

from collections.abc import Callable

from jobq._worker.ipc.messages import AlreadyCommitted, Failure, Progress, Success


class RunnerEvents:
    """Passes on the reports of one worker's runners.

    The pool gets these methods as callbacks; `subscribe` sets the receivers. A runner starts only
    after the worker is assembled, so no report can arrive before `subscribe`.
    """

    def subscribe(
        self,
        *,
        succeeded: Callable[[list[Success]], None],
        set_back: Callable[[Failure], None],
        recorded: Callable[[AlreadyCommitted], None],
        progressed: Callable[[Progress], None],
        ready: Callable[[], None],
    ) -> None:
        """Set the receivers, one for each event."""
        self._succeeded = succeeded
        self._set_back = set_back
        self._recorded = recorded
        self._progressed = progressed
        self._ready = ready

    def succeeded(self, successes: list[Success]) -> None:
        """Pass on successes that a runner reports."""
        self._succeeded(successes)

    def set_back(self, setback: Failure) -> None:
        """Pass on an execution that ended without success, as a runner or the pool reports."""
        self._set_back(setback)

    def recorded(self, recorded: AlreadyCommitted) -> None:
        """Pass on an outcome that a runner has committed itself."""
        self._recorded(recorded)

    def progressed(self, progress: Progress) -> None:
        """Pass on a progress report of a running job."""
        self._progressed(progress)

    def ready(self) -> None:
        """Report that a runner has become ready, or that more jobs can be accepted.

        The runner may have newer code.
        """
        self._ready()
