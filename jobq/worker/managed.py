"""Claims from managed queues: those with a limit, a rate, a rule for their groups, or a cap for this worker.

Each is claimed by itself, by the function claim_managed, under a lock of its own; plain queues are claimed all together
(`advance.py`) and pay for none of this. When to claim next, the function says, or whoever makes room: a job that ends, a
notification, the poll.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import psycopg

from jobq.worker.database import Connection, fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.outcomes import Claimed
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats

CLAIM = "claim_managed"
# When to try again a queue whose lock somebody held for too long, in seconds; doubled each time.
_BUSY_RETRY = (0.05, 1.0)
# The same for a queue of which the claim is refused: a job of it, or a rule, is at fault.
_REFUSED_RETRY = (1.0, 300.0)
PROBLEM = "claim from a queue with rules"
# How often at most other workers are called to what this one leaves behind, in seconds, for each queue.
CALL_EVERY = 0.05


class Ending(Protocol):
    """What has ended, of whatever kind."""

    @property
    def id(self) -> int:
        """The job's."""


class Managed:
    """The managed queues that one worker serves, and what it runs of them."""

    def __init__(self, schema: str, poll_interval: float, caps: Mapping[str, int] | None = None) -> None:
        """`caps`: the most jobs of a queue that this worker holds at a time."""
        self._schema = schema
        self._poll_interval = poll_interval
        self.problems = Problems()
        """Where it says what cannot be claimed from."""
        self._repeats = Repeats()
        self._caps = dict(caps or {})
        self._due: dict[str, float] = {}
        """When to claim from each queue next, in time.monotonic(); those that are paused are not there."""
        self.held: dict[int, str] = {}
        """The jobs that were claimed here and have not ended, and their queues."""
        self._counts: Counter[str] = Counter()
        self._busy: dict[str, tuple[float, float]] = {}
        """Queues whose locks are held for long: until when they are let alone, and for how long the last time."""
        self._strays: set[int] = set()
        """Jobs that were claimed in our name and never arrived, until they are put back: of which queues is not known."""
        self.left: set[str] = set()
        """Queues of which another worker could claim now."""
        self._called: dict[str, float] = {}

    def __len__(self) -> int:
        """How many queues there are."""
        return len(self._due)

    @property
    def queues(self) -> set[str]:
        """Their names."""
        return set(self._due)

    def adopt(self, jobs: Iterable[tuple[Any, ...]]) -> None:
        """These (id, queue) run here, and were claimed when their queue was a plain one."""
        for job_id, queue in jobs:
            if job_id not in self.held:
                self.held[job_id] = queue
                self._counts[queue] += 1

    def refresh(self, queues: Iterable[str]) -> None:
        """These are the managed queues that are served now, and no others."""
        now = time.monotonic()
        self._due = {queue: self._due.get(queue, now) for queue in queues}

    def hear(self, queue: str) -> bool:
        """There may be something to claim. Return whether `queue` is one of these."""
        if queue not in self._due:
            return False
        self._due[queue] = self._busy.get(queue, (0.0, 0.0))[0]
        return True

    def hear_all(self) -> None:
        """There may be something to claim in any of them."""
        for queue in self._due:
            self.hear(queue)

    @property
    def due_at(self) -> float:
        """When to claim next, in time.monotonic(); infinity when there is no such queue."""
        return min((due for queue, due in self._due.items() if self._room(queue) > 0), default=math.inf)

    def due(self) -> list[str]:
        """Return the queues to claim from now, in an order that favours none."""
        now = time.monotonic()
        found = [queue for queue, due in self._due.items() if due <= now and self._room(queue) > 0]
        random.shuffle(found)
        return found

    def _room(self, queue: str) -> float:
        return self._caps.get(queue, math.inf) - self._counts[queue]

    def strayed(self, ids: Iterable[int]) -> None:
        """These were claimed in our name and never arrived; they are about to be put back."""
        self._strays.update(ids)

    def ended(self, endings: Iterable[Ending], *, seen_by: str | None = None) -> None:
        """These have ended and that is written down: their queues may have room.

        `seen_by`: but for this one, whose claim in the same transaction has seen it.
        """
        if not self.held and not self._strays:
            return
        for ending in endings:
            queue = self.held.pop(ending.id, None)
            if queue is not None:
                self._counts[queue] -= 1
                if queue != seen_by:
                    self.left.add(queue)
                    self.hear(queue)
            elif ending.id in self._strays:
                self._strays.discard(ending.id)
                self.left.update(self._due)
                self.hear_all()

    def forget(self) -> None:
        """What was held is another's now."""
        self.held.clear()
        self._counts.clear()
        self._strays.clear()

    def left_behind(self, *, every: float = CALL_EVERY) -> list[str]:
        """Return the queues to which other workers are to be called now: this one does not take all that can be had there."""
        now = time.monotonic()
        found = [queue for queue in self.left if now - self._called.get(queue, -math.inf) >= every]
        self.left.difference_update(found)
        self._called.update(dict.fromkeys(found, now))
        return found

    async def claim(self, connection: Connection, worker: UUID, queue: str, want: int) -> Claimed:
        """Claim up to `want` jobs of `queue`. Raises psycopg.Error when the connection is lost; else the queue is let alone."""
        claim = self.begin(worker, queue, want)
        try:
            rows = await fetch(connection, self._schema, CLAIM, **claim)
        except psycopg.errors.LockNotAvailable:
            self.locked(queue)
            return Claimed()
        except BaseException as error:
            kind = classify(error, connection)
            if not isinstance(error, psycopg.Error) or kind is ErrorKind.CONNECTION:
                self.failed(queue)
                raise
            self.locked(queue, _REFUSED_RETRY if kind is ErrorKind.REFUSED else _BUSY_RETRY)
            self.problems.note(PROBLEM, error, queue=queue)
            self._repeats.warn("a queue cannot be claimed from: it is let alone for a while", error, queue=queue)
            return Claimed()
        return self.took(claim, rows)

    def queue_of(self, endings: Iterable[Ending]) -> str | None:
        """Return a managed queue of which one of `endings` is, and that can be claimed from; None when there is none."""
        if not self.held:
            return None
        return next((queue for ending in endings if self._open(queue := self.held.get(ending.id))), None)

    def _open(self, queue: str | None) -> bool:
        return queue is not None and queue in self._due and self._busy.get(queue, (0.0, 0.0))[0] <= time.monotonic()

    def begin(self, worker: UUID, queue: str, want: int, *, ending: Iterable[Ending] = ()) -> dict[str, Any]:
        """A claim is about to be made: return its parameters. `took` or `failed` is to follow.

        `ending`: what ends in the same transaction, and makes room under this worker's cap.
        """
        # What is heard from here on, this claim may not see.
        self._due[queue] = time.monotonic() + self._poll_interval
        self.left.discard(queue)
        room = self._room(queue)
        if queue in self._caps:
            room += sum(self.held.get(one.id) == queue for one in ending)
        return {"worker": worker, "queue": queue, "want": int(min(want, room))}

    def failed(self, queue: str) -> None:
        """What became of the claim is not known."""
        self._sooner(queue, 0.0)

    def locked(self, queue: str, pauses: tuple[float, float] = _BUSY_RETRY) -> None:
        """Somebody holds the queue's lock: let it alone for a while, each time for longer, whatever is heard meanwhile."""
        first, longest = pauses
        pause = min(longest, max(first, 2 * self._busy[queue][1])) if queue in self._busy else first
        self._busy[queue] = (time.monotonic() + pause, pause)
        self.hear(queue)

    def took(self, claim: Mapping[str, Any], rows: Sequence[tuple[Any, ...]]) -> Claimed:
        """Take note of what a claim has brought."""
        queue, want = claim["queue"], claim["want"]
        if self._busy.pop(queue, None) is not None:
            self.problems.clear(PROBLEM, queue=queue)
        if not rows:
            # Paused by now.
            return Claimed()
        *jobs, last = rows
        for job in jobs:
            self.held[job[0]] = queue
        self._counts[queue] += len(jobs)
        seconds: float | None = last[8]
        if seconds is not None:
            self._sooner(queue, time.monotonic() + seconds if seconds > 0 else 0.0)
            if seconds == 0 and len(jobs) >= want:
                self.left.add(queue)
        return Claimed(0, None, jobs)

    def _sooner(self, queue: str, at: float) -> None:
        if queue in self._due:
            self._due[queue] = min(self._due[queue], at)
