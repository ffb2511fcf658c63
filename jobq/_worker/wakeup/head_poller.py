"""One poll of the lead poller.

A poll reads the first jobs of some lanes, and wakes the workers concerned.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from jobq._worker.database import Connection, fetch
from jobq._worker.lanes.cursor import ClaimSnapshot, Cursor, scan_parameters
from jobq._worker.lanes.horizon import next_transaction
from jobq._worker.lanes.live_lanes import Lane
from jobq._worker.wakeup.lane_rotation import LOOK, LaneRotation
from jobq._worker.wakeup.policy import LATEST, LaneHead, LastClaim, PollInterval, WakeupTargets

# Seconds between reads of the existing lanes and paused queues: a job may be the first of its
# queue.
LANES_INTERVAL = 0.25
# Most lanes of one statement, and most queue names that are remembered.
SLICE = 500
MOST_NAMED = 1000
# Even if the own claim loop is busy, lanes that its claims cannot see are polled this often: queues
# that it does not serve, and new queues.
BESIDE = 0.05


class Code(Protocol):
    """The application, as imported by the runners."""

    @property
    def queues(self) -> Iterable[str]:
        """The queues of its tasks."""


class OwnFinder(Protocol):
    """Where this worker's claim loop searches for jobs."""

    def found(self, queue: str, priority: int | None = None) -> bool:
        """Report that the lane has due jobs. Return whether the claim loop searches the lane."""


class HeadPoller:
    """The polls of a worker that is or may become the lead poller."""

    def __init__(self, schema: str, *, every_queue: bool, code: Code, finder: OwnFinder, claims: LastClaim) -> None:
        """`every_queue`: this worker serves all queues.

        `finder` and `claims` belong to its claim loop.
        """
        self._schema = schema
        self._beside = BESIDE if every_queue else LATEST
        self._code = code
        self._finder = finder
        self._claims = claims
        self._paused: frozenset[str] = frozenset()
        self._named: dict[str, None] = {}
        """Queues of notifications since this worker became the lead poller, or last polled."""
        self._looked = 0.0
        self.begin()

    def begin(self) -> None:
        """Start as the lead poller: earlier knowledge is outdated."""
        self._lanes_at = 0.0
        self.last_id: int | None = None
        """The id of the last inserted job; None: unknown."""
        self._rhythm, self._calls, self._cursor, self._rota = PollInterval(), WakeupTargets(), Cursor(), LaneRotation()

    def name(self, queue: str) -> None:
        """Record a notification of a job in this queue."""
        if len(self._named) >= MOST_NAMED:
            self._named.clear()
        self._named[queue] = None

    def lowered(self, queue: str, run_at: int) -> None:
        """Record that jobs of `queue` are claimable again from this run_at (microseconds) on."""
        self._cursor.lower(queue, run_at)

    def next_look(self) -> float:
        """Return when to poll the heads.

        This is `PollInterval.pause` after the beginning of the last poll or the last own claim.
        """
        claims = self._claims
        if claims.full:
            # The own loop has more jobs than it can take. Others may take them, and polling sooner
            # gains nothing.
            return self._looked + max(LATEST, self._rhythm.pause)
        at = max(self._looked, claims.begun) + self._rhythm.pause
        if claims.begun > self._looked:
            at = min(at, self._looked + max(self._beside, self._rhythm.pause))
        return at

    async def look(self, connection: Connection) -> tuple[float, int]:
        """Poll some heads, or all if there are few, and wake the workers concerned.

        Return the seconds until the next future job is due, and the oldest running transaction.
        Raises psycopg.Error.
        """
        now, before = time.monotonic(), self._looked
        if now >= self._lanes_at:
            await self.discover(connection)
        self._looked = time.monotonic()
        named, self._named = self._named, {}
        for queue in named:
            self._rota.name(queue)
        looked = self._rota.next()
        lanes = [lane for lane in looked if lane[0] not in self._paused]
        scan = self._cursor.plan([queue for queue, _ in lanes], [priority for _, priority in lanes])
        [(_, last_id, at, _, oldest, above, given), *rows] = await fetch(
            connection, self._schema, "due_lane_heads", **scan_parameters(scan)
        )
        arrivals = last_id - self.last_id if last_id and self.last_id else 0
        self._cursor.looked(
            scan,
            ClaimSnapshot(at=at, xmin=oldest, following=next_transaction(above, given)),
            {place: (run_at, id_) for place, id_, run_at, *_ in rows},
            gone=arrivals,
        )
        arrived, self.last_id = last_id != self.last_id, last_id
        heads = [LaneHead(lane=lanes[place], id=id_, seconds=seconds) for place, id_, _, seconds, *_ in rows]
        await self._call(connection, looked, heads, arrived=arrived)
        took = time.monotonic() - self._looked
        self._rhythm.looked(found=self._calls.news or self._claims.found > before, took=took)
        due = min((head.seconds for head in heads if head.seconds > 0), default=float("inf"))
        # The next job in the other lanes is unknown.
        return due if len(self._rota) <= LOOK else min(due, LATEST), oldest

    async def _call(self, connection: Connection, lanes: list[Lane], heads: list[LaneHead], *, arrived: bool) -> None:
        """Wake the workers concerned by these heads. `heads` are all the heads of `lanes`."""
        for head in heads:
            self._rota.seen(head.lane)
        if others := self._calls.look(lanes, heads, arrived=arrived, take=self._take_all):
            await fetch(connection, self._schema, "notify_workers", channel=self._schema, queues=others)

    async def discover(self, connection: Connection) -> None:
        """Read every lane with jobs, in slices, and the paused queues.

        Wake the workers concerned.
        """
        begun, floor, epoch, words = time.monotonic(), self._cursor.floor, self._cursor.epoch, self._cursor.words
        rules = await fetch(connection, self._schema, "queue_rules")
        self._paused = frozenset(queue for queue, paused, _ in rules if paused)
        for queue in self._code.queues:
            self._rota.name(queue)
        queue, priority = "", -1
        while True:
            rows = await fetch(connection, self._schema, "lanes", queue=queue, priority=priority, most=SLICE)
            found = [row for row in rows if row[0] not in self._paused]
            for name, rank, run_at, job_id, _ in found:
                self._cursor.found((name, rank), (run_at, job_id), floor)
            heads = [LaneHead(lane=(name, rank), id=job_id, seconds=due) for name, rank, _, job_id, due in found]
            await self._call(connection, [head.lane for head in heads], heads, arrived=False)
            if len(rows) < SLICE:
                break
            queue, priority = rows[-1][:2]
        if self._cursor.epoch == epoch:
            self._cursor.keep(self._rota.__contains__, floor, words)
        read = time.monotonic()
        # If many lanes or dead entries make this slow, it is done less often.
        self._lanes_at = read + max(LANES_INTERVAL, 20 * (read - begun))

    def _take_all(self, lane: Lane) -> bool:
        """Wake the own loop for `lane`.

        Return whether it will take all jobs, judging by its last claim.
        """
        return self._finder.found(*lane) and not self._claims.full
