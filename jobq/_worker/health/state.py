"""The health of a worker: written by its parts, read by systemd, Kubernetes and the operator.

All times are time.monotonic() seconds. Nothing here waits or queries: a reader gets the last known
values.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Literal

Phase = Literal["starting", "working", "stopping"]

# The rate of finished jobs is an average over this many seconds.
_RATE_WINDOW = 10.0


class LoopHealth:
    """The health of one loop that depends on the database."""

    def __init__(self, name: str) -> None:
        now = time.monotonic()
        self.name = name
        self.turned = now
        """When the loop last took a step. A blocked loop does not update it."""
        self.answered: float | None = None
        """When a whole round last succeeded, with good answers of the database; None if none has."""
        self.error: str | None = None
        """Why its rounds fail at present; None if they do not."""
        self.failing_since: float | None = None
        self.errors = 0
        """Number of rounds that ever failed because of the database."""
        self.round_trip: float | None = None
        """Seconds that its last statement of work took; None if there was none."""

    def turn(self) -> None:
        """Note a step."""
        self.turned = time.monotonic()

    def well(self) -> None:
        """Note a whole round that succeeded."""
        self.turned = self.answered = time.monotonic()
        self.error = self.failing_since = None

    def failed(self, error: BaseException) -> None:
        """Note a round that failed because of the database."""
        self.turned = time.monotonic()
        self.errors += 1
        self.error = " ".join(str(error).split()) or type(error).__name__
        if self.failing_since is None:
            self.failing_since = self.turned


class WorkerHealth:
    """The health of one worker.

    Its parts write the attributes. `phase` goes from starting to working to stopping.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.phase: Phase = "starting"
        self.stopping_since: float | None = None
        self.claims = LoopHealth("claims")
        self.heartbeats = LoopHealth("heartbeats")
        self.stuck: str | None = None
        """Why the worker is stuck and needs a restart; None if it is not. See watchdog.py."""
        self.listener_errors = 0
        self.listener_connected = False
        self.polling = False
        """Whether a pooler prevents listening, so jobs are found by polling: no fault."""
        self.listener_lost_since: float | None = self.started
        self.silent_inserts = False
        """Whether the lead poller polls, because producers do not notify or did not until recently."""
        self.leading = False
        """Whether this worker is the lead poller."""
        self.runner_deaths: Counter[str] = Counter()
        """Number of unexpected runner deaths by reason: ``crashed``, or ``killed`` by the worker."""
        self.finished = 0
        """Number of outcomes written so far."""
        self.slots = 0
        """Number of jobs that the ready runners can execute at the same time."""
        self.running = 0
        """Number of jobs that runners hold, started or not."""
        self.runners_ready = 0
        self.runners_wanted = 0
        self.log_dropped = 0
        """Number of output lines and log records dropped because their reader did not read them."""
        self.unrecorded = 0
        """Number of executions that have ended but whose outcome is not written yet."""
        self.held: str | None = None
        """Why no job may be claimed at present; None if claims continue."""
        self.problems: list[dict[str, Any]] = []
        """The problems that the worker has at present, as in its row (problems.py)."""
        self.stalls: dict[str, str] = {}
        """The present stalls and their causes: see stalls.py."""
        self.quiet = False
        """Whether no job is claimed because an operator wants this: this is no fault."""
        self._finished_at: deque[tuple[float, int]] = deque([(self.started, 0)])

    def begin_to_stop(self) -> None:
        """Note that the worker is stopping and claims no more jobs."""
        if self.phase != "stopping":
            self.phase = "stopping"
            self.stopping_since = time.monotonic()

    def listening(self, connected: bool, *, polling: bool = False) -> None:
        """Note whether the listener is connected.

        `polling`: there is nothing to connect to.
        """
        self.polling = polling
        if connected or polling:
            self.listener_lost_since = None
        elif self.listener_lost_since is None:
            self.listener_lost_since = time.monotonic()
        self.listener_connected = connected

    def sample(self) -> None:
        """Sample the number of finished jobs for `rate`. Called about once a second."""
        now = time.monotonic()
        self._finished_at.append((now, self.finished))
        while now - self._finished_at[0][0] > _RATE_WINDOW:
            self._finished_at.popleft()

    @property
    def rate(self) -> float:
        """Recent rate of finished jobs per second."""
        (then, before), (now, after) = self._finished_at[0], self._finished_at[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def troubles(self) -> Iterable[str]:
        """Yield the present faults, the worst first, each as a phrase for one line."""
        now = time.monotonic()
        if self.stuck is not None:
            yield self.stuck
        failing = [pulse for pulse in (self.claims, self.heartbeats) if pulse.failing_since is not None]
        silent = now - (self.claims.answered or self.started) if self.phase == "working" else 0.0
        if failing:
            worst = min(failing, key=lambda pulse: pulse.failing_since or now)
            seconds = now - (worst.failing_since or now)
            if len(failing) > 1 or silent > 10:
                yield f"the database does not answer for {max(seconds, silent):.0f} s ({worst.error})"
            else:
                yield f"the {worst.name} connection fails for {seconds:.0f} s ({worst.error})"
        elif silent > 10:
            yield f"the database has not answered a claim for {silent:.0f} s"
        if self.held is not None:
            yield f"nothing is claimed: {self.held}"
        if self.phase == "working":
            if self.runners_ready < self.runners_wanted:
                yield f"{self.runners_ready} of {self.runners_wanted} runners are ready"
            if self.listener_lost_since is not None and now - self.listener_lost_since > 1 and not failing:
                yield f"no notifications for {now - self.listener_lost_since:.0f} s; polling goes on"

    def line(self) -> str:
        """Return the state as one line for people."""
        now = time.monotonic()
        match self.phase:
            case "starting":
                text = f"starting for {now - self.started:.0f} s: importing the application"
            case "working":
                text = f"{self.running} running in {self.slots} slots, {self.rate:.1f} jobs/s"
                if self.quiet:
                    text = f"quiet, as asked: {text}"
            case "stopping":
                text = f"stopping for {now - (self.stopping_since or now):.0f} s: {self.running} running"
        if self.unrecorded and self.phase == "stopping":
            text += f", {self.unrecorded} outcomes to write"
        return "; ".join((text, *self.troubles()))
