"""What is known of a worker's own health: written by its parts, read by systemd's, Kubernetes' and the operator's windows.

All times are of time.monotonic(), in seconds. Nothing here waits or asks: a reader gets what was last true.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Literal

Phase = Literal["starting", "working", "stopping"]

# The rate of finished jobs is an average over this long.
_RATE_WINDOW = 10.0


class Pulse:
    """One loop that lives by the database: when it last came round, and what the database last said to it."""

    def __init__(self, name: str) -> None:
        now = time.monotonic()
        self.name = name
        self.turned = now
        """When it last took a step: a loop that stands still does not renew it."""
        self.answered: float | None = None
        """When a whole round last went well, the database asked and all of its answers good; None: not yet."""
        self.error: str | None = None
        """Why its rounds fail at present; None when they do not."""
        self.failing_since: float | None = None
        self.errors = 0
        """Rounds that have ever failed because the database was away."""
        self.round_trip: float | None = None
        """Seconds that its last statement of work took; None: none yet."""

    def turn(self) -> None:
        """Take note of a step."""
        self.turned = time.monotonic()

    def well(self) -> None:
        """Take note of a whole round that went well."""
        self.turned = self.answered = time.monotonic()
        self.error = self.failing_since = None

    def failed(self, error: BaseException) -> None:
        """Take note of a round that the database failed."""
        self.turned = time.monotonic()
        self.errors += 1
        self.error = " ".join(str(error).split()) or type(error).__name__
        if self.failing_since is None:
            self.failing_since = self.turned


class Vitals:
    """One worker's. Its parts write the attributes; `phase` goes from starting over working to stopping."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.phase: Phase = "starting"
        self.stopping_since: float | None = None
        self.claims = Pulse("advance")
        self.heartbeats = Pulse("lease")
        self.stuck: str | None = None
        """Why the worker is beyond its own repair; None when it is not. See watch.py."""
        self.listener_errors = 0
        self.listener_connected = False
        self.polling = False
        """Whether there is nothing to listen to, because a pooler stands between: that is no fault."""
        self.listener_lost_since: float | None = self.started
        self.brisk = False
        """Whether jobs are looked for by a sentinel, as producers do not notify, or have not for long."""
        self.sentinel = False
        """Whether this worker is that sentinel."""
        self.runner_deaths: Counter[str] = Counter()
        """Runners that ended, by why: crashed, or killed by us."""
        self.finished = 0
        """Outcomes recorded so far."""
        self.slots = 0
        """Jobs that the ready runners can execute at the same time."""
        self.running = 0
        """Jobs that runners have, started or not."""
        self.runners_ready = 0
        self.runners_wanted = 0
        self.log_dropped = 0
        """Lines of output and log records that were dropped, since their reader did not read them."""
        self.unrecorded = 0
        """Executions that have ended and whose outcome is not written down yet."""
        self.held: str | None = None
        """Why nothing may be claimed at present; None when claims go on."""
        self.problems: list[dict[str, Any]] = []
        """What it cannot do at present, and tries again: as in its row (problems.py)."""
        self.quiet = False
        """Whether nothing is claimed because an operator wants it so: that is no fault."""
        self._finished_at: deque[tuple[float, int]] = deque([(self.started, 0)])

    def begin_to_stop(self) -> None:
        """From here on no job is claimed, and the worker is on its way out."""
        if self.phase != "stopping":
            self.phase = "stopping"
            self.stopping_since = time.monotonic()

    def listening(self, connected: bool, *, polling: bool = False) -> None:
        """The listener has become connected, or has lost its connection; `polling`: it has nothing to connect to."""
        self.polling = polling
        if connected or polling:
            self.listener_lost_since = None
        elif self.listener_lost_since is None:
            self.listener_lost_since = time.monotonic()
        self.listener_connected = connected

    def sample(self) -> None:
        """Remember how many jobs are finished now, for `rate`. Called about once a second."""
        now = time.monotonic()
        self._finished_at.append((now, self.finished))
        while now - self._finished_at[0][0] > _RATE_WINDOW:
            self._finished_at.popleft()

    @property
    def rate(self) -> float:
        """Jobs finished per second, lately."""
        (then, before), (now, after) = self._finished_at[0], self._finished_at[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def troubles(self) -> Iterable[str]:
        """Yield what is wrong, the worst first, each as a phrase that can stand in a line."""
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
        """Return the state in one line for people."""
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
