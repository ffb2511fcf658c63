"""The sentinel: the one worker that looks for jobs on behalf of all while producers do not notify.

*Going brisk*: a worker that hears too many notifications takes the sentinel's lock, a session advisory lock on a connection
of its own, and sets the mode to BRISK. From then on it polls the heads of the queues, wakes its own claiming loop, and
calls the other workers to what that loop leaves behind.

*Going quiet*: set SETTLING, so that producers notify again; then take a transaction id, the mark; poll until the oldest
transaction of a poll's own snapshot is newer than the mark; set QUIET. A producer has its transaction id before it reads the
mode (migrations/sql/0001_notify_insert.sql). So one that read BRISK is older than the mark, and has ended when the poll
says so, and that very poll has seen its jobs. The snapshot's xmax would not do for the mark: it is the id after the last
one that has ended, and running ones may be above it. tests/unit/test_wake_protocol.py goes through all interleavings.

*Dying*: the mode stays as it is and the lock is free, which every heartbeat shows to all workers: one that sees it takes
the place. So SETTLING is a mode of its own: under QUIET no worker would know that the wait was not over. While the mode is
not QUIET all others poll every second, whatever happens to the sentinel.

The mode is only ever set over the session that holds the lock: a worker that has lost the place cannot set it any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterable

import psycopg

from jobq.worker.advance import Advance
from jobq.worker.brisk import LATEST, SOONEST, Arrivals, Calls, Head, Mode, Rhythm
from jobq.worker.cursor import Cursor, Sight, next_transaction
from jobq.worker.database import Connection, Database, close, fetch
from jobq.worker.lease import wait_or
from jobq.worker.live import Lane
from jobq.worker.options import WorkerOptions
from jobq.worker.outcomes import scan_parameters
from jobq.worker.rota import LOOK, Rota
from jobq.worker.stalls import Repeats

logger = logging.getLogger("jobq.worker")

# How often is read which lanes there are, and which queues are paused: a job may be the first of its queue.
LANES_INTERVAL = 0.25
# Lanes of one statement, and most queues that are remembered as heard of.
SLICE = 500
MOST_NAMED = 1000
# However busy the own loop, what its claims cannot see is looked for this often: other queues than its own, and new ones.
BESIDE = 0.05
# Seconds that the server waits for a sign of the sentinel before it gives the place away. It looks every second at least.
IDLE_LIMIT = "5s"
SLOWEST = 1.0
# Workers that would all take the place at the same moment look first whether one has.
_JITTER = 0.05
_AGAIN_AFTER = 1.0
# A wait for old transactions that is worth a line.
_LONG_WAIT = 5.0


class Sentinel:
    """One worker's readiness to be it. What notifications and heartbeats say is told by `told` and `heard`."""

    def __init__(
        self, options: WorkerOptions, database: Database, advance: Advance, queues: Callable[[], Iterable[str]]
    ) -> None:
        """`queues` returns those of the application's tasks."""
        self._schema = options.settings.schema
        self._slowest = min(SLOWEST, options.poll_interval)
        self._beside = BESIDE if options.queues is None else LATEST
        self._database = database
        self._advance = advance
        self._arrivals = Arrivals()
        self._queues = queues
        self._rota = Rota()
        self._paused: frozenset[str] = frozenset()
        self._cursor = Cursor()
        self._named: dict[str, None] = {}
        """Queues that were heard of since this worker last became the sentinel, or looked."""
        self._lanes_at = 0.0
        self._rhythm = Rhythm()
        self._calls = Calls()
        self._last_id: int | None = None
        self._looked = 0.0
        self._repeats = Repeats()
        self._reason = asyncio.Event()
        """There may be reason to do something else than now: to take the place, to go brisk again, to leave."""
        self._vacant = False
        """Whether the mode is not QUIET and no session holds the lock, as far as is known."""
        self._unable = False
        self._leave = asyncio.Event()
        self._left = asyncio.Event()
        self.mode = Mode.QUIET
        """The mode, as last heard."""
        self.active = False
        """Whether this worker is the sentinel."""

    @property
    def hearing(self) -> bool:
        """Whether this worker learns of every job without a poll: producers notify, or it is itself the one who looks."""
        return self.active or self.mode is Mode.QUIET

    # --- what the others tell --------------------

    def inserted(self, queue: str | None) -> None:
        """A producer has notified; None: of many queues."""
        self._arrivals.heard()
        if queue is not None:
            if len(self._named) >= MOST_NAMED:
                self._named.clear()
            self._named[queue] = None
        if self.mode is not Mode.BRISK and self._arrivals.many:
            self._reason.set()

    def lowered(self, queue: str, run_at: int) -> None:
        """Jobs of `queue` can be claimed again at their old places, the first at this run_at in microseconds."""
        if self.active:
            self._cursor.lower(queue, run_at)

    def told(self, what: str) -> None:
        """A sentinel says what it has done: set a mode, or left its place (`nobody`)."""
        mode = self.mode if what == "nobody" else Mode.__members__.get(what.upper())
        # Every role that may connect may send any notification.
        if mode is not None and not self.active:
            self._learn(mode, watched=what != "nobody")
            # This worker has not been told of jobs for later that came silently.
            self._advance.notified("")

    def heard(self, mode: int, *, watched: bool) -> None:
        """The heartbeat brought back the mode, and whether a session holds the sentinel's lock."""
        if not self.active:
            before = self.hearing
            self._learn(Mode(mode), watched=watched)
            if before and not self.hearing:
                self._advance.notified("")

    def _learn(self, mode: Mode, *, watched: bool) -> None:
        self.mode = mode
        self._vacant = mode is not Mode.QUIET and not watched
        if self._called:
            self._reason.set()

    @property
    def _called(self) -> bool:
        return self._vacant or (self.mode is Mode.QUIET and self._arrivals.many)

    # --- taking and leaving the place --------------------

    async def run(self) -> None:
        """Be the sentinel whenever there is reason to be, until cancelled; after `leave` never again."""
        while not self._unable and not self._leave.is_set():
            await self._reason.wait()
            self._reason.clear()
            await asyncio.sleep(random.uniform(0, _JITTER))
            if self._leave.is_set() or not self._called:
                continue
            try:
                await self._take()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._repeats.warn("no connection for the sentinel; polling goes on", error)
            await wait_or(self._leave, _AGAIN_AFTER)
        self._left.set()
        # The others would take its end for a fault.
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """Give the place to another, for good. Returns when that is done, or could not be within two seconds."""
        self._leave.set()
        self._reason.set()
        await wait_or(self._left, 2.0)

    async def _take(self) -> None:
        # Whether it stays so, the heartbeats will tell.
        self._vacant = False
        connection = await self._database.connect("sentinel", direct=True)
        try:
            if connection.pooled:
                # The lock would stay with the pooler's session, for other clients to inherit.
                self._unable = True
                return
            name = f"jobq sentinel {os.getpid()} {socket.gethostname()}"[:63]
            [(taken, *_)] = await fetch(connection, self._schema, "wake_take", name=name, idle=IDLE_LIMIT)
            if not taken:
                return
            [(mode,)] = await fetch(connection, self._schema, "wake_mode")
            self.active = True
            if mode != Mode.QUIET:
                logger.info("the sentinel's place was free: taken", extra={"mode": Mode(mode).name.lower()})
            await self._serve(connection, Mode(mode))
        except psycopg.Error as error:
            # Whatever its kind, the place is given up, and taken again by the first worker that needs it.
            self._repeats.warn("the sentinel cannot look for jobs; polling goes on", error)
        finally:
            await close(connection)
            if self.active:
                self.active = False
                # From here on it depends on what it is told, as all others do.
                self._advance.notified("")

    async def _serve(self, connection: Connection, mode: Mode) -> None:
        """Look for jobs until the mode is QUIET, or this worker leaves."""
        self.mode = mode
        self._lanes_at = 0.0
        self._last_id = None
        self._rhythm, self._calls, self._cursor, self._rota = Rhythm(), Calls(), Cursor(), Rota()
        if mode is Mode.QUIET:
            await self._set(connection, Mode.BRISK)
        while True:
            if self.mode is Mode.BRISK:
                await self._watch(connection)
            if self._leave.is_set():
                await fetch(connection, self._schema, "wake_leave", channel=self._schema, told="wake nobody")
                return
            if await self._settle(connection):
                await self._set(connection, Mode.QUIET)
                return

    async def _set(self, connection: Connection, mode: Mode) -> None:
        await fetch(
            connection, self._schema, "wake_set", mode=mode, channel=self._schema, told=f"wake {mode.name.lower()}"
        )
        self.mode = mode
        logger.debug("the mode of waking is set", extra={"mode": mode.name.lower()})

    # --- looking --------------------

    async def _watch(self, connection: Connection) -> None:
        """Poll until few enough jobs come for producers to notify again."""
        self._arrivals.begin()
        due_at = 0.0
        while not self._leave.is_set():
            now = time.monotonic()
            at = min(self._next_look(), due_at)
            if now < at:
                await wait_or(self._leave, min(at - now, LATEST))
                continue
            due, _ = await self._look(connection)
            if self._arrivals.calm(self._last_id):
                return
            due_at = time.monotonic() + max(due, SOONEST / 2)

    def _next_look(self) -> float:
        """Return when to look at the heads: `Rhythm.pause` after the last look began, or the own loop's last claim."""
        claims = self._advance.claims
        if claims.full:
            # More than it can take: others may, and nothing is gained by looking sooner.
            return self._looked + max(LATEST, self._rhythm.pause)
        at = max(self._looked, claims.begun) + self._rhythm.pause
        if claims.begun > self._looked:
            at = min(at, self._looked + max(self._beside, self._rhythm.pause))
        return at

    async def _settle(self, connection: Connection) -> bool:
        """Poll until no transaction is left that may have read BRISK. False: something else is wanted before that."""
        await self._set(connection, Mode.SETTLING)
        [(mark,)] = await fetch(connection, self._schema, "wake_mark")
        since, told = time.monotonic(), False
        while True:
            due, oldest = await self._look(connection)
            if oldest > mark:
                # All who may have read BRISK have ended: a reading that begins now sees every job of theirs.
                await self._discover(connection)
                return True
            waited = time.monotonic() - since
            if waited > _LONG_WAIT and not told:
                told = True
                logger.info(
                    "waiting for transactions that began to write while inserts were silent; polling until they end",
                    extra={"oldest": oldest, "seconds": round(waited, 1)},
                )
            self._reason.clear()
            await wait_or(self._reason, min(max(waited / 8, SOONEST), self._slowest, max(due, SOONEST)))
            if self._leave.is_set():
                return False
            if self._arrivals.many:
                await self._set(connection, Mode.BRISK)
                return False

    async def _look(self, connection: Connection) -> tuple[float, int]:
        """Look at some heads once, all of them where they are not too many, and wake the workers concerned. Return the seconds
        until the next job for later is due, and the oldest running transaction.
        """
        now, before = time.monotonic(), self._looked
        if now >= self._lanes_at:
            await self._discover(connection)
        self._looked = time.monotonic()
        named, self._named = self._named, {}
        for queue in named:
            self._rota.name(queue)
        looked = self._rota.next()
        lanes = [lane for lane in looked if lane[0] not in self._paused]
        scan = self._cursor.plan([queue for queue, _ in lanes], [priority for _, priority in lanes])
        [(_, last_id, at, _, oldest, above, given), *rows] = await fetch(
            connection, self._schema, "heads", **scan_parameters(scan)
        )
        arrivals = last_id - self._last_id if last_id and self._last_id else 0
        self._cursor.looked(
            scan,
            Sight(at=at, xmin=oldest, following=next_transaction(above, given)),
            {place: (run_at, id_) for place, id_, run_at, *_ in rows},
            gone=arrivals,
        )
        arrived, self._last_id = last_id != self._last_id, last_id
        heads = [Head(lane=lanes[place], id=id_, seconds=seconds) for place, id_, _, seconds, *_ in rows]
        await self._call(connection, looked, heads, arrived=arrived)
        took = time.monotonic() - self._looked
        self._rhythm.looked(found=self._calls.news or self._advance.claims.found > before, took=took)
        due = min((head.seconds for head in heads if head.seconds > 0), default=float("inf"))
        # What is next in the others is not known.
        return due if len(self._rota) <= LOOK else min(due, LATEST), oldest

    async def _call(self, connection: Connection, lanes: list[Lane], heads: list[Head], *, arrived: bool) -> None:
        """Wake the workers concerned by these heads, which are all that the lanes have."""
        for head in heads:
            self._rota.seen(head.lane)
        if others := self._calls.look(lanes, heads, arrived=arrived, take=self._take_all):
            await fetch(connection, self._schema, "wake_tell", channel=self._schema, queues=others)

    async def _discover(self, connection: Connection) -> None:
        """Read every lane that has jobs, in slices, and which queues are paused; and wake the workers concerned."""
        begun, floor, epoch, words = time.monotonic(), self._cursor.floor, self._cursor.epoch, self._cursor.words
        rules = await fetch(connection, self._schema, "queue_rules")
        self._paused = frozenset(queue for queue, paused, _ in rules if paused)
        for queue in self._queues():
            self._rota.name(queue)
        queue, priority = "", -1
        while True:
            rows = await fetch(connection, self._schema, "lanes", queue=queue, priority=priority, most=SLICE)
            found = [row for row in rows if row[0] not in self._paused]
            for name, rank, run_at, job_id, _ in found:
                self._cursor.found((name, rank), (run_at, job_id), floor)
            heads = [Head(lane=(name, rank), id=job_id, seconds=due) for name, rank, _, job_id, due in found]
            await self._call(connection, [head.lane for head in heads], heads, arrived=False)
            if len(rows) < SLICE:
                break
            queue, priority = rows[-1][:2]
        if self._cursor.epoch == epoch:
            self._cursor.keep(self._rota.__contains__, floor, words)
        read = time.monotonic()
        # Where many lanes or dead entries make that slow, not so often.
        self._lanes_at = read + max(LANES_INTERVAL, 20 * (read - begun))

    def _take_all(self, lane: Lane) -> bool:
        """Wake the own loop for `lane`; tell whether it will leave nothing behind, as far as its last claim shows."""
        return self._advance.found(*lane) and not self._advance.claims.full
