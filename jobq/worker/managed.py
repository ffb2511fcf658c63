"""Claims from managed queues: those with a limit, a rate, a rule for their groups, or a cap for this worker.

Each is claimed by itself, by the function claim_managed, under a lock of its own; plain queues are claimed all together
(`advance.py`) and pay for none of this. The time of the next claim comes from the function, or from what makes room: a job that
ends, a notification. Behind these stands a poll: one statement for all queues (`managed_due.sql`), and a claim of those that
have something. So a queue without a job costs nothing, and nothing here goes through all queues for each of them.

A claim that the database refuses, or takes too long over, is made again for single jobs, and those that are at fault are left
out (`suspects.py`): then a variant of the statement is used.

A lock that another holds is not waited for. It is mostly another claim, of milliseconds, and tried again soon; the longer it
is held, as by an operator who configures the queue and does not commit, the less often.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.errors import Diagnostic

from jobq.worker.cursor import Horizon
from jobq.worker.database import Connection, fetch, fetch_within
from jobq.worker.due import QUIET
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.lines import Lines
from jobq.worker.outcomes import MAX_BATCH, Claimed
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats
from jobq.worker.suspects import PATIENCE, QueueTrouble, Tried, is_slow

CLAIM = "claim_managed"
CAREFUL = "claim_managed:except"
# When to try again a queue whose lock another holds, in seconds: each time later by so much, up to the longest.
_BUSY_RETRY = (0.002, 1.3, 1.0)
# The same for a queue of which the claim is refused, and no single job is at fault.
_REFUSED_RETRY = (1.0, 2.0, 300.0)
# Where a claim's last row has what: the word `locked`, what was seen, when to come again, what runs.
_PERMITS, _WORD, _SEEN, _SECONDS, _RUNNING = 1, 2, 4, 8, 9
PROBLEM = "claim from a queue with rules"
REFUSED = "claim a job of a queue with rules"
# How often at most other workers are called to what this one leaves behind, in seconds, for each queue.
CALL_EVERY = 0.05


class Ending(Protocol):
    """What has ended, of whatever kind."""

    @property
    def id(self) -> int:
        """The job's."""


@dataclass(slots=True)
class _Known:
    """What is known of one queue from its last claim."""

    lines: Lines = field(default_factory=Lines)
    ran_by: str | None = None
    """By which claim, and what it stands on: void for claim_managed when that has changed."""
    ran: str = "{}"
    """The jobs of all workers that ran then, as an array's text: psycopg takes milliseconds for one of thousands."""


class Managed:
    """The managed queues that one worker serves, and what it runs of them."""

    def __init__(
        self,
        schema: str,
        poll_interval: float,
        caps: Mapping[str, int] | None = None,
        *,
        listening: Callable[[], bool] = lambda: False,
    ) -> None:
        """`caps`: the most jobs of a queue that this worker holds at a time. `listening`: whether every job is heard of."""
        self._schema = schema
        self._poll_interval = poll_interval
        self._listening = listening
        self.problems = Problems()
        """Where it says what cannot be claimed from."""
        self._repeats = Repeats()
        self._caps = dict(caps or {})
        self._queues: set[str] = set()
        self._known: dict[str, _Known] = {}
        self._horizon = Horizon()
        self._at: dict[str, tuple[float, int]] = {}
        """When to claim from a queue, in time.monotonic(), and which entry of `_order` says so; a queue is not there when
        nothing is known to be due."""
        self._order: list[tuple[float, int, str]] = []
        """A heap of what `_at` has, and of what it had; entries are numbered."""
        self._entries = itertools.count()
        self._full: set[str] = set()
        """Queues that are due and of which this worker holds as many as it may."""
        self._poll_at = 0.0
        """When to look which queues have something."""
        self._seen_due: set[str] = set()
        """Queues in which the last look has seen something due, until they are claimed from."""
        self.held: dict[int, str] = {}
        """The jobs that were claimed here and have not ended, and their queues."""
        self._counts: Counter[str] = Counter()
        self._busy: dict[str, tuple[float, float]] = {}
        """Queues whose locks were held: until when they are let alone, and for how long the last time."""
        self._trouble: dict[str, QueueTrouble] = {}
        """Queues whose last claims have failed, or leave something out."""
        self._strays: set[int] = set()
        """Jobs that were claimed in our name and never arrived, until they are put back: of which queues is not known."""
        self.left: set[str] = set()
        """Queues of which another worker could claim now."""
        self._called: dict[str, float] = {}

    def __len__(self) -> int:
        """How many queues there are."""
        return len(self._queues)

    @property
    def queues(self) -> set[str]:
        """Their names."""
        return set(self._queues)

    def adopt(self, jobs: Iterable[tuple[Any, ...]]) -> None:
        """These (id, queue) run here, and were claimed when their queue was a plain one."""
        for job_id, queue in jobs:
            if job_id not in self.held:
                self.held[job_id] = queue
                self._counts[queue] += 1

    def refresh(self, queues: Iterable[str]) -> bool:
        """These are the managed queues that are served now, and no others; those that are paused are none.

        Return whether some were not before.
        """
        now = set(queues)
        if now == self._queues:
            return False
        for queue in self._queues - now:
            self._full.discard(queue)
            self._seen_due.discard(queue)
            if (trouble := self._trouble.get(queue)) is not None:
                # A claim that meets them again finds them again.
                self.problems.clear(PROBLEM, queue=queue)
                for tried in trouble.tried.values():
                    self.problems.clear(REFUSED, queue=queue, **tried.subject)
            for remembered in (self._known, self._at, self._busy, self._called, self._trouble):
                remembered.pop(queue, None)
        new = bool(now - self._queues)
        if new:
            self._poll_at = 0.0
        self._queues = now
        return new

    def hear(self, queue: str) -> bool:
        """There may be something to claim. Return whether `queue` is one of these."""
        if queue not in self._queues:
            return False
        self._sooner(queue, 0.0)
        return True

    def lower(self, queue: str) -> None:
        """Jobs of `queue` can be claimed again at their old places: read its lines from their beginnings."""
        if (known := self._known.get(queue)) is not None:
            known.lines.lower()

    def hear_all(self, *, missed: bool = False) -> None:
        """There may be something to claim in any of them: look. `missed`: words of jobs in old places may have been lost."""
        self._poll_at = 0.0
        if missed:
            for known in self._known.values():
                known.lines.lower()

    def doubt(self) -> None:
        """The connection was lost: what is known of queues may have been undone with it, and what was notified, missed."""
        self._known.clear()
        self._horizon = Horizon()
        self._poll_at = 0.0

    @property
    def due_at(self) -> float:
        """When to claim or to look next, in time.monotonic(); infinity when there is no such queue."""
        return min(self._next(), self._poll_at if self._queues else math.inf)

    def _next(self) -> float:
        """Return when the next queue is due that has room; those that have none are set apart until a job ends."""
        while self._order:
            at, number, queue = self._order[0]
            if self._at.get(queue) == (at, number):
                if self.room(queue) > 0:
                    return at
                self._full.add(queue)
                del self._at[queue]
            heapq.heappop(self._order)
        return math.inf

    @property
    def poll_due(self) -> bool:
        """Whether it is time to look which queues have something."""
        return bool(self._queues) and self._poll_at <= time.monotonic()

    async def poll(self, connection: Connection) -> None:
        """Look which queues have something to claim, and when. Raises psycopg.Error."""
        # A notification from here on is about jobs that this look may not see.
        self._poll_at = math.inf
        try:
            rows = await fetch(connection, self._schema, "managed_due", capped=list(self._caps))
        except BaseException:
            self._poll_at = time.monotonic() + self._poll_interval
            raise
        now = time.monotonic()
        interval = self._poll_interval * (QUIET if self._listening() else 1) * random.uniform(0.9, 1.0)
        self._poll_at = min(self._poll_at, now + interval)
        for queue, seconds in rows:
            if queue in self._queues:
                self._sooner(queue, now + seconds if seconds > 0 else 0.0)
                if seconds <= 0:
                    self._seen_due.add(queue)

    def due(self) -> list[str]:
        """Return the queues to claim from now, in an order that favours none."""
        now = time.monotonic()
        found: list[tuple[float, int, str]] = []
        while self._next() <= now:
            found.append(heapq.heappop(self._order))
        # They stay due until they are claimed from.
        for entry in found:
            heapq.heappush(self._order, entry)
        queues = [queue for _, _, queue in found]
        random.shuffle(queues)
        return queues

    def room(self, queue: str) -> float:
        """Return how many more jobs of `queue` this worker may hold; infinity without a cap."""
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
                if queue in self._full:
                    self._full.discard(queue)
                    self.hear(queue)
                if queue != seen_by:
                    self.left.add(queue)
                    self.hear(queue)
            elif ending.id in self._strays:
                self._strays.discard(ending.id)
                self.left.update(self._queues)
                self.hear_all()

    def forget(self) -> None:
        """What was held is another's now."""
        self.held.clear()
        self._counts.clear()
        self._strays.clear()
        # Without them no queue is full.
        self._full.clear()
        self._poll_at = 0.0

    def left_behind(self, *, every: float = CALL_EVERY) -> list[str]:
        """Return the queues to which other workers are to be called now: this one does not take all that can be had there."""
        now = time.monotonic()
        found = [queue for queue in self.left if now - self._called.get(queue, -math.inf) >= every]
        self.left.difference_update(found)
        self._called.update(dict.fromkeys(found, now))
        return found

    async def claim(self, connection: Connection, worker: UUID, queue: str, want: int) -> Claimed:
        """Claim up to `want` jobs of `queue`. Raises psycopg.Error when the connection is lost; else the queue is let alone."""
        trouble = self._trouble.get(queue)
        if trouble is not None and trouble.most is not None:
            return await self._claim_carefully(connection, worker, queue, want, trouble)
        claim = self.begin(worker, queue, want)
        try:
            rows = await fetch(connection, self._schema, CLAIM, **claim)
        except BaseException as error:
            kind = classify(error, connection)
            self.failed(queue, error, kind)
            if not isinstance(error, psycopg.Error) or kind is ErrorKind.CONNECTION:
                raise
            return Claimed()
        return self.took(claim, rows)

    async def _claim_carefully(
        self, connection: Connection, worker: UUID, queue: str, want: int, trouble: QueueTrouble
    ) -> Claimed:
        """Claim some jobs, without those that are refused; or try one of those again. Raises psycopg.Error as `claim`."""
        retry = trouble.retry()
        most = 1 if retry is not None else min(want, trouble.most or want)
        claim = {**self.begin(worker, queue, most), **trouble.parameters(retry)}
        said: list[Tried] = []

        def hear(notice: Diagnostic) -> None:
            if (tried := Tried.read(notice.message_primary)) is not None:
                said.append(tried)

        connection.add_notice_handler(hear)
        try:
            rows = await fetch_within(trouble.within(retry), connection, self._schema, CAREFUL, **claim)
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                self._sooner(queue, 0.0)
                raise
            kind = classify(error, connection)
            self._failed_carefully(queue, trouble, said[-1] if said else None, error, kind)
            if kind is ErrorKind.CONNECTION:
                raise
            return Claimed()
        finally:
            connection.remove_notice_handler(hear)
        claimed = self.took(claim, rows, aimed=retry is not None)
        if rows and rows[-1][_WORD] == "locked":
            return claimed
        if retry is not None:
            if any(tried.key == retry.key for tried in said):
                trouble.suspects.let_in(retry.key)
            else:
                trouble.suspects.unmet(retry.key)
            if retry.key not in trouble.suspects:
                self.problems.clear(REFUSED, queue=queue, **trouble.tried.pop(retry.key).subject)
                self.lower(queue)
        if said or not claim["one_by_one"]:
            self.problems.clear(PROBLEM, queue=queue)
            if trouble.went_well(MAX_BATCH):
                del self._trouble[queue]
        self._sooner(queue, trouble.suspects.due_at)
        return claimed

    def _failed_carefully(
        self, queue: str, trouble: QueueTrouble, tried: Tried | None, error: psycopg.Error, kind: ErrorKind
    ) -> None:
        lost = kind is ErrorKind.CONNECTION
        one = trouble.most == 1 or trouble.retrying
        trouble.failed(error, lost=lost, refused=kind is ErrorKind.REFUSED)
        if not one or (lost and trouble.losses < PATIENCE):
            # One by one from now on, or again: it is not known yet which is the reason.
            self._sooner(queue, 0.0)
        elif (
            kind is ErrorKind.TRANSIENT
            and not is_slow(error)
            and trouble.failures <= PATIENCE
            and not (tried is not None and tried.key in trouble.suspects)
        ):
            self.locked(queue)
        elif tried is not None and trouble.leave_out(tried, error):
            self.problems.note(REFUSED, error, queue=queue, **tried.subject)
            self._repeats.warn(
                "a job cannot be claimed: it is left out, and tried again ever more rarely",
                error,
                queue=queue,
                **tried.subject,
            )
            self._sooner(queue, 0.0)
        else:
            self.problems.note(PROBLEM, error, queue=queue)
            self._repeats.warn("a queue cannot be claimed from: it is let alone for a while", error, queue=queue)
            self.locked(queue, _BUSY_RETRY if kind is ErrorKind.TRANSIENT else _REFUSED_RETRY)

    def queue_of(self, endings: Iterable[Ending]) -> str | None:
        """Return a managed queue of which one of `endings` is, and that can be claimed from; None when there is none."""
        if not self.held:
            return None
        return next((queue for ending in endings if self._open(queue := self.held.get(ending.id))), None)

    def _open(self, queue: str | None) -> bool:
        if queue is None or queue not in self._queues or queue in self._trouble:
            return False
        return self._busy.get(queue, (0.0, 0.0))[0] <= time.monotonic()

    def begin(self, worker: UUID, queue: str, want: int, *, ending: Iterable[Ending] = ()) -> dict[str, Any]:
        """A claim is about to be made: return its parameters. `took` or `failed` is to follow.

        `ending`: what ends in the same transaction, and makes room under this worker's cap.
        """
        # What is heard from here on, this claim may not see.
        self._at.pop(queue, None)
        self.left.discard(queue)
        room = self.room(queue)
        if queue in self._caps:
            room += sum(self.held.get(one.id) == queue for one in ending)
        known = self._known.get(queue)
        if known is None:
            known = self._known[queue] = _Known()
        return {
            "worker": worker, "queue": queue, "want": int(min(want, room)), **known.lines.begin(),
            "ran_by": known.ran_by, "ran": known.ran,
        }  # fmt: skip

    def failed(self, queue: str, error: BaseException, kind: ErrorKind) -> None:
        """The claim has failed, or its result is not known: claim again soon, and perhaps one job at a time."""
        if queue not in self._queues or not isinstance(error, psycopg.Error):
            self._sooner(queue, 0.0)
            return
        trouble = self._trouble.setdefault(queue, QueueTrouble())
        careful = trouble.failed(error, lost=kind is ErrorKind.CONNECTION, refused=kind is ErrorKind.REFUSED)
        if careful or kind is ErrorKind.CONNECTION:
            self._sooner(queue, 0.0)
            return
        self.locked(queue)
        if not isinstance(error, psycopg.errors.LockNotAvailable):
            self.problems.note(PROBLEM, error, queue=queue)
            self._repeats.warn("a queue cannot be claimed from: it is let alone for a while", error, queue=queue)

    def locked(self, queue: str, pauses: tuple[float, float, float] = _BUSY_RETRY) -> None:
        """Another holds the queue's lock, or it is refused: let it alone, each time for longer, whatever is heard meanwhile."""
        first, factor, longest = pauses
        pause = min(longest, max(first, factor * self._busy[queue][1])) if queue in self._busy else first
        # Two that have met are not to meet again.
        self._busy[queue] = (time.monotonic() + pause * random.uniform(0.5, 1.0), pause)
        self._at.pop(queue, None)
        self.hear(queue)

    def took(self, claim: Mapping[str, Any], rows: Sequence[tuple[Any, ...]], *, aimed: bool = False) -> Claimed:
        """Take note of what a claim has brought. `aimed`: at one job, reading no line for others."""
        queue, want = claim["queue"], claim["want"]
        if rows and rows[-1][_WORD] == "locked":
            self.locked(queue)
            return Claimed()
        if self._busy.pop(queue, None) is not None:
            self.problems.clear(PROBLEM, queue=queue)
        if (trouble := self._trouble.get(queue)) is not None and trouble.most is None:
            del self._trouble[queue]
        if not rows:
            # Paused by now.
            return Claimed()
        *jobs, last = rows
        for job in jobs:
            self.held[job[0]] = queue
        self._counts[queue] += len(jobs)
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
                # Something is due, and lies where this claim has not read.
                known.lines.lower()
                self._sooner(queue, 0.0)
        if seconds is not None:
            self._sooner(queue, time.monotonic() + seconds if seconds > 0 else 0.0)
            if seconds == 0 and len(jobs) >= want:
                self.left.add(queue)
        return Claimed(0, None, jobs)

    def _sooner(self, queue: str, at: float) -> None:
        """Claim from `queue` at that time at the latest, or when it may be tried again."""
        if queue not in self._queues:
            return
        at = max(at, self._busy.get(queue, (0.0, 0.0))[0])
        if queue not in self._at or at < self._at[queue][0]:
            number = next(self._entries)
            self._at[queue] = at, number
            heapq.heappush(self._order, (at, number, queue))
