"""The lead poller: the one worker that polls on behalf of all while producers do not notify.

*Start of polling*: a worker that gets too many notifications takes the lead poller's lock, a
session advisory lock on a separate connection, and sets the notify mode to POLL
(`NotifyMode.POLL`). From then on it polls the heads of the queues, wakes its own claim loop, and
calls other workers for the jobs that its loop leaves.

*End of polling*: set DRAINING (`NotifyMode.DRAINING`), so that producers notify again. Then take a
transaction id, the mark. Poll until the oldest transaction in a poll's own snapshot is newer than
the mark. Then set NOTIFY. A producer has its transaction id before it reads the mode
(migrations/functions/notify_insert.sql). A producer that read POLL is therefore older than the
mark. Once a poll shows that it has ended, that same poll has seen its jobs. The snapshot's xmax
would not work as the mark: it is the id after the last ended transaction, and running ones may be
above it. tests/worker/wakeup/test_wake_protocol.py checks all interleavings.

*Death of the lead poller*: the mode stays, and the lock is free. Every heartbeat shows this to all
workers, and a worker that sees it takes over. DRAINING is therefore a separate mode: under NOTIFY,
no worker would know that the wait was not over. While the mode is not NOTIFY, all other workers
poll every second, whatever happens to the lead poller.

The mode is only set by the session that holds the lock: a worker that lost the lock can no longer
change the mode.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from typing import Protocol

import psycopg

from jobq._worker.database import Connection, Database, close, fetch
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.lease import wait_or
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.wakeup.head_poller import Code, HeadPoller, OwnFinder
from jobq._worker.wakeup.policy import LATEST, SOONEST, InsertRate, LastClaim, NotifyMode
from jobq._worker.wakeup.state import WakeupState

logger = logging.getLogger("jobq.worker")

# If the server gets no sign of the lead poller for this time, it ends the session and frees the
# lock. The lead poller polls at least every second.
IDLE_LIMIT = "5s"
SLOWEST = 1.0
# Workers that would all take over at the same moment first check whether one has.
_JITTER = 0.05
_AGAIN_AFTER = 1.0
# A longer wait (seconds) for old transactions is logged.
_LONG_WAIT = 5.0


class OwnClaimer(Protocol):
    """What makes the claims of this worker."""

    claims: LastClaim
    """What the last claims found."""


class OwnClaimLoop(Protocol):
    """This worker's claim loop."""

    @property
    def finder(self) -> OwnFinder:
        """Where it searches for jobs."""

    @property
    def claimer(self) -> OwnClaimer:
        """What makes its claims."""

    def wake(self, topic: Topic | None = None) -> None:
        """React to a notification."""


class LeadPoller:
    """One worker's readiness to be the lead poller.

    `wake` gets notifications, `heard` gets the results of heartbeats.
    """

    name = "poller"

    def __init__(
        self,
        options: WorkerOptions,
        database: Database,
        claim_loop: OwnClaimLoop,
        code: Code,
        wakeups: WakeupState,
    ) -> None:
        """`code` has the queues of the application's tasks.

        `wakeups` gets the mode and the role.
        """
        self._schema = options.settings.schema
        self._slowest = min(SLOWEST, options.poll_interval)
        self._database = database
        self._claim_loop = claim_loop
        self._wakeups = wakeups
        self._arrivals = InsertRate()
        self._heads = HeadPoller(
            self._schema,
            every_queue=options.queues is None,
            code=code,
            finder=claim_loop.finder,
            claims=claim_loop.claimer.claims,
        )
        self._connection: Connection | None = None
        self._repeats = RateLimitedLog()
        self._reason = asyncio.Event()
        """Set if there may be a reason to take over, to start polling again, or to leave."""
        self._vacant = False
        """Whether the mode is not NOTIFY and, as far as known, no session holds the lock."""
        self._unable = False
        self._leave = asyncio.Event()
        self._left = asyncio.Event()

    # --- reports from other parts --------------------

    def wake(self, topic: Topic | None = None) -> None:
        """React to a notification about jobs, or about the actions of another lead poller."""
        if topic is None:
            return
        match topic.kind:
            case "wake":
                self._told(topic.subject)
            case "below":
                if (place := topic.place) is not None:
                    self.lowered(*place)
            case "insert" | "many":
                self._inserted(topic.subject or None)

    def _inserted(self, queue: str | None) -> None:
        """Record a producer's notification; None: for many queues."""
        self._arrivals.heard()
        if queue is not None:
            self._heads.name(queue)
        if self._wakeups.mode is not NotifyMode.POLL and self._arrivals.many:
            self._reason.set()

    def lowered(self, queue: str, run_at: int) -> None:
        """Record that jobs of `queue` are claimable again from this run_at (microseconds) on."""
        if self._wakeups.leading:
            self._heads.lowered(queue, run_at)

    def _told(self, what: str) -> None:
        """React to a lead poller that has set a mode, or has left (`free`)."""
        mode = self._wakeups.mode if what == "free" else NotifyMode.__members__.get(what.upper())
        # Every role that may connect may send any notification.
        if mode is not None and not self._wakeups.leading:
            self._learn(mode, watched=what != "free")
            # This worker was not notified of future jobs that were inserted silently.
            self._claim_loop.wake(MISSED)

    def heard(self, mode: int, *, watched: bool) -> None:
        """Record the heartbeat's mode, and whether a session holds the lead poller's lock."""
        if not self._wakeups.leading:
            before = self._wakeups.told_of_all
            self._learn(NotifyMode(mode), watched=watched)
            if before and not self._wakeups.told_of_all:
                self._claim_loop.wake(MISSED)

    def _learn(self, mode: NotifyMode, *, watched: bool) -> None:
        self._wakeups.mode = mode
        self._vacant = mode is not NotifyMode.NOTIFY and not watched
        if self._called:
            self._reason.set()

    @property
    def _called(self) -> bool:
        return self._vacant or (self._wakeups.mode is NotifyMode.NOTIFY and self._arrivals.many)

    # --- becoming and leaving the lead poller --------------------

    async def run(self) -> None:
        """Be the lead poller whenever needed, until cancelled; never again after `leave`."""
        while not self._unable and not self._leave.is_set():
            await self._reason.wait()
            self._reason.clear()
            await asyncio.sleep(random.uniform(0, _JITTER))
            if self._leave.is_set() or not self._called:
                continue
            try:
                await self._take()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._repeats.warn("no connection for the lead poller; polling goes on", error)
            await wait_or(self._leave, _AGAIN_AFTER)
        self._left.set()
        # An end of the loop would count as a fault.
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """Hand the role to another worker, permanently.

        This returns when it is done, or was not possible within two seconds.
        """
        self._leave.set()
        self._reason.set()
        await wait_or(self._left, 2.0)

    async def _take(self) -> None:
        # Heartbeats will show whether this stays so.
        self._vacant = False
        connection = await self._database.connect("poller", direct=True)
        self._connection = connection
        try:
            if connection.pooled:
                # The pooler's session would keep the lock, and other clients would inherit it.
                self._unable = True
                return
            name = f"jobq poller {os.getpid()} {socket.gethostname()}"[:63]
            [(taken, *_)] = await fetch(connection, self._schema, "poller_lead_take", name=name, idle=IDLE_LIMIT)
            if not taken:
                return
            [(mode,)] = await fetch(connection, self._schema, "notify_mode_get")
            self._wakeups.leading = True
            if mode != NotifyMode.NOTIFY:
                logger.info("no worker was the lead poller: took over", extra={"mode": NotifyMode(mode).name.lower()})
            await self._serve(connection, NotifyMode(mode))
        except psycopg.Error as error:
            # After any error, the role is given up, and the first worker that needs it takes over.
            self._repeats.warn("the lead poller cannot poll; polling goes on", error)
        finally:
            self._connection = None
            await close(connection)
            if self._wakeups.leading:
                self._wakeups.leading = False
                # From here on this worker depends on notifications, like all others.
                self._claim_loop.wake(MISSED)

    async def _serve(self, connection: Connection, mode: NotifyMode) -> None:
        """Poll until the mode is NOTIFY, or this worker leaves."""
        self._wakeups.mode = mode
        self._heads.begin()
        if mode is NotifyMode.NOTIFY:
            await self._set(connection, NotifyMode.POLL)
        while True:
            if self._wakeups.mode is NotifyMode.POLL:
                await self._watch(connection)
            if self._leave.is_set():
                await fetch(connection, self._schema, "poller_lead_leave", channel=self._schema, told="wake free")
                return
            if await self._settle(connection):
                await self._set(connection, NotifyMode.NOTIFY)
                return

    async def _set(self, connection: Connection, mode: NotifyMode) -> None:
        await fetch(
            connection,
            self._schema,
            "notify_mode_set",
            mode=mode,
            channel=self._schema,
            told=f"wake {mode.name.lower()}",
        )
        self._wakeups.mode = mode
        logger.debug("the mode of waking is set", extra={"mode": mode.name.lower()})

    # --- polling --------------------

    async def _watch(self, connection: Connection) -> None:
        """Poll until the rate of jobs is low enough for producers to notify again."""
        self._arrivals.begin()
        due_at = 0.0
        while not self._leave.is_set():
            now = time.monotonic()
            at = min(self._heads.next_look(), due_at)
            if now < at:
                await wait_or(self._leave, min(at - now, LATEST))
                continue
            due, _ = await self._heads.look(connection)
            if self._arrivals.calm(self._heads.last_id):
                return
            due_at = time.monotonic() + max(due, SOONEST / 2)

    async def _settle(self, connection: Connection) -> bool:
        """Poll until every transaction that may have read POLL has ended.

        False: interrupted before.
        """
        await self._set(connection, NotifyMode.DRAINING)
        [(mark,)] = await fetch(connection, self._schema, "transaction_mark")
        since, told = time.monotonic(), False
        while True:
            due, oldest = await self._heads.look(connection)
            if oldest > mark:
                # Every transaction that may have read POLL has ended: a read that starts now sees
                # all its jobs.
                await self._heads.discover(connection)
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
                await self._set(connection, NotifyMode.POLL)
                return False

    # --- interface of a loop --------------------

    def stall(self) -> Stall | None:
        """Return since when the lead poller's statement has run.

        The result is None if there is none, or if this worker is not the lead poller.
        """
        connection = self._connection
        if connection is None or connection.since is None:
            return None
        return Stall(f"looking for jobs: {connection.waiting_for}", connection.since)

    async def close(self) -> None:
        """Do nothing: the connection ends with `run`."""
