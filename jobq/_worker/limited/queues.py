"""Claims from limited queues: those with a limit, rate, rule for groups, or cap for this worker.

Each limited queue is claimed from by itself, by the function claim_limited, under its own lock.
Plain queues are claimed from all together (`claimer.py`) and pay for none of this. The function
returns the time of the next claim; events that make room, such as an ended job or a notification,
make it earlier. Behind these stands a poll: one statement for all queues (`limited_due.sql`), then
a claim from each queue that has something. So a queue without jobs costs nothing, and no code here
walks over all queues for each of them.

If another transaction holds the lock, the claim does not wait. The holder is mostly another claim
that takes milliseconds, so the next try is soon. The longer the lock is held, for example by an
operator who configures the queue and does not commit, the rarer the tries.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, fetch
from jobq._worker.database_errors import ErrorKind
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.suspects import QueueTrouble
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.lanes.horizon import VisibilityHorizon
from jobq._worker.lanes.next_due import NOTIFY
from jobq._worker.limited.held import HeldLimitedJobs
from jobq._worker.limited.ready_lines import ReadyLines
from jobq._worker.limited.schedule import BUSY_RETRY, LimitedSchedule
from jobq._worker.statements.results import Claimed

# Columns of a claim's last row: permits, the word `locked`, what was seen, seconds to the next
# claim, running jobs.
_PERMITS, WORD, _SEEN, _SECONDS, _RUNNING = 1, 2, 4, 8, 9
PROBLEM = "claim from a queue with rules"
# Least seconds between two calls to other workers about jobs that this one leaves, per queue.
CALL_EVERY = 0.05


class QueueEnd(Protocol):
    """An ended execution of any kind."""

    @property
    def id(self) -> int:
        """Id of the job."""


@dataclass(slots=True)
class _Known:
    """What is known of one queue from its last claim."""

    lines: ReadyLines = field(default_factory=ReadyLines)
    ran_by: str | None = None
    """The claim that returned `ran`, and the state it is based on.

    If that state has changed, claim_limited ignores `ran`.
    """
    ran: str = "{}"
    """The jobs of all workers that ran then, as the text of an array.

    psycopg takes milliseconds to format an array of thousands.
    """


class LimitedQueues:
    """The limited queues that one worker serves, and the jobs of them that it runs."""

    def __init__(
        self,
        schema: str,
        poll_interval: float,
        caps: Mapping[str, int] | None = None,
        *,
        listening: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the queues.

        Args:
            schema: The database schema.
            poll_interval: Seconds between polls.
            caps: The most jobs of a queue that this worker holds at a time, by queue.
            listening: Returns whether a notification announces every job.
        """
        self._schema = schema
        self._poll_interval = poll_interval
        self._listening = listening
        self.problems = Problems()
        """Receives the queues that cannot be claimed from."""
        self._repeats = RateLimitedLog()
        self.held = HeldLimitedJobs(caps or {})
        """The jobs that were claimed here and have not ended."""
        self._schedule = LimitedSchedule(self.held.room)
        self.queues: frozenset[str] = frozenset()
        """The names of the queues that are served now."""
        self._known: dict[str, _Known] = {}
        self._horizon = VisibilityHorizon()
        self._poll_at = 0.0
        """When to look which queues have something to claim."""
        self._seen_due: set[str] = set()
        """Queues where the last look has seen something due.

        They stay until the next claim from them.
        """
        self.trouble: dict[str, QueueTrouble] = {}
        """Queues whose last claims have failed, or that leave some jobs out."""
        self.on_dropped: Callable[[str, QueueTrouble], None] | None = None
        """Called with a queue in trouble that is no longer served."""
        self.left: set[str] = set()
        """Queues from which another worker could claim now."""
        self._called: dict[str, float] = {}

    def refresh(self, queues: Iterable[str]) -> bool:
        """Replace the limited queues that are served now. Paused queues are not among them.

        Return whether some of them are new.
        """
        now = frozenset(queues)
        if now == self.queues:
            return False
        for queue in self.queues - now:
            self._schedule.drop(queue)
            self._seen_due.discard(queue)
            if (trouble := self.trouble.pop(queue, None)) is not None and self.on_dropped is not None:
                self.on_dropped(queue, trouble)
            self._known.pop(queue, None)
            self._called.pop(queue, None)
        new = bool(now - self.queues)
        if new:
            self._poll_at = 0.0
        self.queues = now
        return new

    def hear(self, queue: str) -> bool:
        """There may be something to claim in `queue`. Return whether it is a limited queue."""
        if queue not in self.queues:
            return False
        self.sooner(queue, 0.0)
        return True

    def lower(self, queue: str) -> None:
        """Read the lines of `queue` from the beginning: jobs are claimable at old places."""
        if (known := self._known.get(queue)) is not None:
            known.lines.lower()

    def hear_all(self, *, missed: bool = False) -> None:
        """There may be something to claim in any limited queue: look.

        `missed`: notifications of jobs at old places may have been lost.
        """
        self._poll_at = 0.0
        if missed:
            for known in self._known.values():
                known.lines.lower()

    def doubt(self) -> None:
        """Handle a lost connection: notifications may be missed, known state rolled back."""
        self._known.clear()
        self._horizon = VisibilityHorizon()
        self._poll_at = 0.0

    @property
    def due_at(self) -> float:
        """When to claim or to look next, in time.monotonic() seconds.

        Infinity: there is no such queue.
        """
        return min(self._schedule.next_at, self._poll_at if self.queues else math.inf)

    @property
    def poll_due(self) -> bool:
        """Whether it is time to look which queues have something to claim."""
        return bool(self.queues) and self._poll_at <= time.monotonic()

    async def poll(self, connection: Connection) -> None:
        """Look which queues have something to claim, and when. Raises psycopg.Error."""
        # This look may not see jobs of later notifications.
        self._poll_at = math.inf
        try:
            rows = await fetch(connection, self._schema, "limited_due", capped=list(self.held.caps))
        except BaseException:
            self._poll_at = time.monotonic() + self._poll_interval
            raise
        now = time.monotonic()
        interval = self._poll_interval * (NOTIFY if self._listening() else 1) * random.uniform(0.9, 1.0)
        self._poll_at = min(self._poll_at, now + interval)
        for queue, seconds in rows:
            if queue in self.queues:
                self.sooner(queue, now + seconds if seconds > 0 else 0.0)
                if seconds <= 0:
                    self._seen_due.add(queue)

    def due(self) -> list[str]:
        """Return the queues to claim from now, in an order that favours none."""
        return self._schedule.due()

    def ended(self, endings: Iterable[QueueEnd], *, seen_by: str | None = None) -> None:
        """Record executions whose ends are written: their queues may have room.

        `seen_by`: a queue to leave out, because its claim in the same transaction has seen the
        room.
        """
        held, schedule = self.held, self._schedule
        queues, counts, strays = held.queues, held.counts, held.strays
        if not queues and not strays:
            return
        for ending in endings:
            queue = queues.pop(ending.id, None)
            if queue is not None:
                counts[queue] -= 1
                if schedule.freed(queue):
                    self.hear(queue)
                if queue != seen_by:
                    self.left.add(queue)
                    self.hear(queue)
            elif ending.id in strays:
                strays.discard(ending.id)
                self.left.update(self.queues)
                self.hear_all()

    def forget(self) -> None:
        """Drop all: the held jobs belong to another worker now."""
        self.held.forget()
        self._schedule.nothing_is_full()
        self._poll_at = 0.0

    def left_behind(self, *, every: float = CALL_EVERY) -> list[str]:
        """Return the queues with jobs to leave to other workers, which are to be notified now."""
        now = time.monotonic()
        found = [queue for queue in self.left if now - self._called.get(queue, -math.inf) >= every]
        self.left.difference_update(found)
        self._called.update(dict.fromkeys(found, now))
        return found

    def queue_of(self, endings: Iterable[QueueEnd]) -> str | None:
        """Return a claimable limited queue that has a job in `endings`. None: there is none."""
        held = self.held.queues
        if not held:
            return None
        for ending in endings:
            queue = held.get(ending.id)
            if queue in self.queues and queue not in self.trouble and self._schedule.is_open(queue):
                return queue
        return None

    def begin(self, worker: UUID, queue: str, want: int, *, ending: Iterable[QueueEnd] = ()) -> dict[str, Any]:
        """Return the parameters of a claim that is about to be made. Call `took` or `failed` next.

        `ending`: executions that end in the same transaction and make room under this worker's cap.
        """
        # This claim may not see jobs of later notifications.
        self._schedule.begun(queue)
        self.left.discard(queue)
        room = self.held.room(queue)
        if queue in self.held.caps:
            room += sum(self.held.queues.get(one.id) == queue for one in ending)
        known = self._known.get(queue)
        if known is None:
            known = self._known[queue] = _Known()
        return {
            "worker": worker, "queue": queue, "want": int(min(want, room)), **known.lines.begin(),
            "ran_by": known.ran_by, "ran": known.ran,
        }  # fmt: skip

    def failed(self, queue: str, error: BaseException, kind: ErrorKind) -> None:
        """Handle a failed or unknown claim: claim again soon, perhaps one job at a time."""
        if queue not in self.queues or not isinstance(error, psycopg.Error):
            self.sooner(queue, 0.0)
            return
        trouble = self.trouble.setdefault(queue, QueueTrouble())
        careful = trouble.failed(error, lost=kind is ErrorKind.CONNECTION, refused=kind is ErrorKind.REFUSED)
        if careful or kind is ErrorKind.CONNECTION:
            self.sooner(queue, 0.0)
            return
        self.locked(queue)
        if not isinstance(error, psycopg.errors.LockNotAvailable):
            self.problems.note(PROBLEM, error, queue=queue)
            self._repeats.warn("a queue cannot be claimed from: it is let alone for a while", error, queue=queue)

    def locked(self, queue: str, pauses: tuple[float, float, float] = BUSY_RETRY) -> None:
        """Leave a queue alone whose lock is held, or whose claim is refused.

        Each time it is left alone for longer. Notifications do not shorten the pause.
        """
        self._schedule.pause(queue, pauses)
        self.hear(queue)

    def took(self, claim: Mapping[str, Any], rows: Sequence[tuple[Any, ...]], *, aimed: bool = False) -> Claimed:
        """Record the result of a claim.

        `aimed`: it claimed one given job and read no line for others.
        """
        queue, want = claim["queue"], claim["want"]
        if rows and rows[-1][WORD] == "locked":
            self.locked(queue)
            return Claimed()
        if self._schedule.resumed(queue):
            self.problems.clear(PROBLEM, queue=queue)
        if (trouble := self.trouble.get(queue)) is not None and trouble.most is None:
            del self.trouble[queue]
        if not rows:
            # The queue has been paused in the meantime.
            return Claimed()
        *jobs, last = rows
        self.held.claimed([job[0] for job in jobs], queue)
        if (known := self._known.get(queue)) is not None:
            if last[_SEEN] is not None and not aimed:
                known.lines.read(last[_SEEN], self._horizon)
            if last[_RUNNING] is not None:
                known.ran_by, _, ran = last[_RUNNING].partition(" ")
                known.ran = "{" + ran.replace(" ", ",") + "}"
        seconds: float | None = 0.0 if aimed else last[_SECONDS]
        if queue in self._seen_due:
            self._seen_due.discard(queue)
            permits = last[_PERMITS]
            if not jobs and seconds is None and (permits is None or permits > 0) and known is not None:
                # Something is due at a place that this claim has not read.
                known.lines.lower()
                self.sooner(queue, 0.0)
        if seconds is not None:
            self.sooner(queue, time.monotonic() + seconds if seconds > 0 else 0.0)
            if seconds == 0 and len(jobs) >= want:
                self.left.add(queue)
        return Claimed(0, None, jobs)

    def sooner(self, queue: str, at: float) -> None:
        """Claim from `queue` by `at` (time.monotonic() seconds), or when its pause is over."""
        if queue in self.queues:
            self._schedule.sooner(queue, at)
