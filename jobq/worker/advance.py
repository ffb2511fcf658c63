"""The hot loop: outcomes to history, ready jobs to runners, one statement and one commit a round.

While there is work, a round follows the other, and what has ended meanwhile makes its batch: the busier, the larger. When
nothing is ready the loop sleeps until a notification, an outcome, the next due job, or the poll.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from jobq.backoff import Backoff
from jobq.worker.account import Account
from jobq.worker.aging import Aging
from jobq.worker.brisk import LastClaim
from jobq.worker.cursor import NOWHERE, Cursor, Scan
from jobq.worker.database import Connection, Database, close, fetch, is_connection_loss
from jobq.worker.due import Due, head_start
from jobq.worker.ended import Ended
from jobq.worker.frames import Ending, Progress, Recorded, Setback, Success
from jobq.worker.lanes import MOST_LANES, Lanes
from jobq.worker.lease import Lease
from jobq.worker.managed import CALL_EVERY, Managed
from jobq.worker.metrics import Metrics
from jobq.worker.options import WorkerOptions
from jobq.worker.outcomes import MAX_BATCH, Claimed, Ledger
from jobq.worker.pace import Pace
from jobq.worker.pool import RunnerPool
from jobq.worker.served import QueueOrder
from jobq.worker.stalls import Repeats, Trouble
from jobq.worker.survey import Survey
from jobq.worker.vitals import Pulse

logger = logging.getLogger("jobq.worker")

# Acknowledgements wait this long for company, unless a slot idles.
FLUSH_AFTER = 0.002
# However few jobs a claim wants, it looks at so many lanes.
LEAST_LANES = 64
# Lanes that had jobs lately, at which an acknowledgement that claims looks as well: inserts may be silent.
WARM_LANES = 64
# How often queues' rules are read anew, and the jobs held compared with those that the database thinks we hold.
RECONCILE_INTERVAL = 5.0
# The same while nothing runs here and notifications come. Less than the ten seconds after which a worker without an answer
# of the database is not ready.
QUIET_RECONCILE_INTERVAL = 8.0
# How often what running jobs say of their progress is written down.
PROGRESS_INTERVAL = 1.0
_RECONNECT = Backoff(base=0.1, cap=2)


class Advance:
    """Claims for, and acknowledges from, one pool of runners."""

    def __init__(
        self,
        options: WorkerOptions,
        pool: RunnerPool,
        lease: Lease,
        pulse: Pulse,
        metrics: Metrics | None = None,
        *,
        database: Database | None = None,
        listening: Callable[[], bool] = lambda: False,
    ) -> None:
        self._options = options
        self._database = database or Database(options.settings)
        self._schema = options.settings.schema
        self._pool = pool
        self._lease = lease
        self._listening = listening
        self._pulse = pulse
        self._metrics = metrics
        self._asked = False
        """Whether this round has asked the database for something."""
        self._ledger = Ledger(self._schema)
        self._aging = Aging(options.aging) if options.aging is not None else None
        self._lanes = Lanes.of(options, self._aging)
        self._managed = Managed(self._schema, options.poll_interval, self._lanes.caps)
        self._busy: frozenset[str] = frozenset()
        """Of which plain queues the last claim brought jobs, while there are managed ones."""
        self._rules: str | None = None
        """When the queues' rules were last changed, as the heartbeat told."""
        self._pace = Pace()
        self._cursor = Cursor()
        self._survey = Survey(self._database, self._schema, self._cursor, self._lanes, self.poke)
        self._claimed: tuple[Claimed, UUID] | None = None
        """What the last statement claimed and no runner has yet, and in whose name."""
        self._told: bool = False
        """Whether a notification is why there should be more."""
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._repeats = Repeats()
        self.ended = Ended(self._ledger, lease, metrics, self._repeats)
        self._account = Account(self._schema, lease, pool)
        self._woken = asyncio.Event()
        self._sleeping = False
        """Whether the loop waits for a reason to do something."""
        self._looks: asyncio.TimerHandle | None = None
        """Ends that wait for a job that was left to others first."""
        self._reconcile_at = 0.0
        self._due = Due(
            self._schema,
            self._lanes,
            self._cursor,
            self._survey,
            poll_interval=options.poll_interval,
            listening=listening,
        )
        self.claims = LastClaim()
        self._trying_since: float | None = None
        """Since when a round trip is wanted that has not succeeded; None: none is wanted."""
        self._error: str | None = None
        self.held: str | None = None
        """Why nothing may be claimed at present; None when claims go on."""
        self.quiet = False
        """Whether an operator wants nothing more to be claimed."""

    @property
    def _more(self) -> bool:
        """Whether there may be jobs that a claim would bring."""
        return self._lanes.more

    # --- what the others tell --------------------

    def progressed(self, progress: Progress) -> None:
        """A runner reports progress; the last word before a round counts."""
        self._account.progressed(progress)
        due = time.monotonic() + PROGRESS_INTERVAL
        if due < self._reconcile_at:
            self._reconcile_at = due
            self._woken.set()

    def notified(self, payload: str) -> None:
        """A notification arrived; empty: some may have been missed."""
        kind, _, queue = payload.partition(" ")
        if kind in ("insert", "below"):
            if self._managed.hear(queue):
                self._woken.set()
                return
            if kind == "below":
                # It kept the place that it had in line.
                self._cursor.lower(queue)
            self._hear(queue)
            return
        self._managed.hear_all()
        if kind != "many":
            self._reconcile_at = 0.0
        self._survey.told_of_many()
        self._woken.set()

    def _hear(self, queue: str) -> None:
        """There is word of a job in this plain queue; every worker has it, and one of them is enough."""
        wait = head_start(self._lease.peers) if self._sleeping and self._want() > 0 else 0.0
        if not self._lanes.hear(queue, ask=wait > 0):
            return
        self._told = True
        if not wait:
            self._woken.set()
        elif self._looks is None:
            self._looks = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        self._looks = None
        self._woken.set()

    def found(self, queue: str, priority: int | None = None) -> bool:
        """The sentinel has seen due jobs. Return whether this loop looks for them; when the next ones are due, it is told."""
        if self._managed.hear(queue):
            self._woken.set()
            return False
        # Without room, too: what makes some need be nothing that is written, and so no claim comes of itself.
        if not (self._lanes.hear(queue) if priority is None else self._lanes.found(queue, priority, 0)):
            return False
        if self._want() <= 0:
            return False
        self._woken.set()
        return True

    def heard(self, paused: list[str], cancelled: list[int], rules: str | None) -> None:
        """The heartbeat brought back which queues are paused now, which of our jobs are to be cancelled, and when the queues'
        rules were last changed.
        """
        if cancelled:
            self._pool.cancel(cancelled)
        if self._lanes.pause(paused):
            self._cursor.doubt()
            self._woken.set()
        if rules != self._rules:
            self._rules = rules
            self._reconcile_at = 0.0
            self._woken.set()
        self._managed.refresh(self._lanes.managed)

    def recorded(self, recorded: Recorded) -> None:
        """A runner has written an outcome down itself."""
        self.ended.recorded(recorded)
        self._managed.ended([recorded])

    def ready(self) -> None:
        """A runner has become ready."""
        self._woken.set()

    def poke(self) -> None:
        """Make the loop look at its state now."""
        self._woken.set()

    def hold(self, reason: str) -> None:
        """Claim nothing until `release_hold`."""
        self.held = reason

    def release_hold(self) -> None:
        """Claim again."""
        self.held = None
        self._survey.told_of_many()
        self._woken.set()

    def be_quiet(self, quiet: bool) -> None:
        """Claim nothing, and leave to the others what is claimed and has not started; or claim again."""
        self.quiet = self._ledger.for_others = quiet
        if quiet:
            self._pool.give_back()
        else:
            self._survey.told_of_many()
        self._woken.set()

    async def forget(self) -> None:
        """Drop the jobs and the outcomes of an identity that is no longer ours: the fence would refuse them."""
        async with self._lock:
            self._claimed = None
            self.ended.forget()
            self._account.forget()
            self._managed.forget()

    # --- the loop --------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Advance until `stop` is set or, with `drain`, until no work is left."""
        failures = 0
        while not stop.is_set():
            self._trying_since = self._trying_since or time.monotonic()
            try:
                self._asked = False
                self._pulse.turn()
                nothing_to_do = await self._round()
                if self._asked:
                    self._pulse.well()
                if nothing_to_do:
                    if self._options.drain and await self._drained():
                        return
                    await self._idle()
                failures = 0
                self._trying_since = self._error = None
            except (psycopg.Error, OSError, TimeoutError) as error:
                if not is_connection_loss(error, self._connection):
                    raise
                failures += 1
                await self._lost(error, failures)
        self._deliver()

    async def _lost(self, error: BaseException, failures: int) -> None:
        self._deliver()
        self._survey.stop()
        self._cursor.forget()
        self._error = self._repeats.warn("the database does not answer", error)
        self._pulse.failed(error)
        self._reconcile_at = 0.0
        self._account.doubt()
        # What was claimed is unknown, and so is what was notified meanwhile; and only a claim can show that claims work.
        self._lanes.poll()
        connection, self._connection = self._connection, None
        await close(connection)
        await asyncio.sleep(_RECONNECT.delay(min(failures, 6)))

    async def _round(self) -> bool:
        """Do one round. Return whether there is nothing to do now."""
        if time.monotonic() >= self._reconcile_at:
            await self._reconcile()
        if self._want() > 0:
            self._due.wake()
            await self._look_around()
        want = self._want()
        if want > 0 and self._managed.due_at <= time.monotonic():
            # What has ended makes room in its own queue, and is written in one commit with the claim into that room: `_step`.
            await self._claim_managed(beside=self._managed.queue_of(self.ended.successes))
            want = self._want()
        if self.ended.writable or (want > 0 and self._more):
            await self._step(want)
        else:
            self._deliver()
        if self._managed.left:
            await self._call_others()
        if self.ended.writable:
            await self._gather()
            return False
        return not (self._more and self._want() > 0)

    async def _look_around(self) -> None:
        """Read which lanes there are, and what is next in those that were read to their ends, when it is time for that."""
        now = time.monotonic()
        if now >= self._survey.due_at:
            self._deliver()
            async with self._lock:
                await self._survey.read(await self._connected())
        if (self._more or self.ended.writable) and now >= self._due.look_up_at:
            self._deliver()
            async with self._lock:
                await self._due.look_up(await self._connected())

    def _want(self) -> int:
        if self.held or self.quiet or not self._pool.ready or not self._lease.fresh:
            return 0
        undelivered = len(self._claimed[0]) if self._claimed is not None else 0
        return max(0, min(MAX_BATCH, self._pool.room(self._pace.prefetch()) - undelivered))

    async def _gather(self) -> None:
        """Let outcomes collect for a moment, unless a slot idles for want of the next claim."""
        if self._claimed is not None and len(self._claimed[0]):
            return
        if self._pool.load >= self._pool.slots and len(self.ended.successes) < MAX_BATCH // 2:
            await asyncio.sleep(FLUSH_AFTER)

    async def _step(self, want: int) -> None:
        async with self._lock:
            connection = await self._connected()
            # That may have taken long enough for the lease to be lost.
            want = min(want, self._want())
            if self.ended.setbacks:
                # Not to wait for what may take long.
                self._deliver()
                settled, again = await self.ended.settle(connection)
                self._managed.ended(settled)
                if again:
                    # Some may be ready again at once, others sooner than what was next, mostly where others came from.
                    self._lanes.poll()
                    self._survey.hasten()
                self._error = None
            await self.ended.take_back(connection)
            if want > 0 and self._aging is not None and self._aging.due:
                await self._aging.look(connection, self._schema, self._cursor.plan(*self._lanes.arrays()))
            successes = self.ended.batch()
            queue = self._managed.queue_of(successes) if not connection.pooled else None
            part = self._managed_part(queue, want) if queue is not None and want > 0 else 0
            want -= part
            scan = self._scan(want, warm=WARM_LANES if successes else 0) if want > 0 else NOWHERE
            if not scan.queues:
                want = 0
            if want > 0 and not self._pace.prefetch():
                # These take long: no queue is to have all slots for as long.
                want = self._lanes.first(want)
            if not successes and not scan.queues:
                self._deliver()
                return
            beside = None
            if queue is not None and part > 0:
                beside = self._managed.begin(self._lease.worker, queue, part, ending=successes)
            await self._exchange(connection, successes, scan, max(want, 0), beside)
        if not (self.ended.writable or (self._more and self._want() > 0)):
            self._deliver()

    async def _claim_managed(self, beside: str | None = None) -> None:
        """Claim from the managed queues that are due: a fair share while plain ones have more, else what can start at once.

        `beside`: not from this one, which is about to be claimed from with its own acknowledgements.
        """
        queues = self._lanes.among(self._managed.due(), beside)
        if not queues:
            return
        # In whose name and into which room is known only when nothing is on its way.
        self._deliver()
        for queue, share in queues:
            async with self._lock:
                connection = await self._connected()
                part = self._managed_part(queue, self._want()) * share
                # Of one free slot, with that probability: who comes after gets what is left.
                if (room := math.floor(part + random.random()) if share < 1 else math.ceil(part)) <= 0:
                    continue
                worker = self._lease.worker
                claimed = await self._managed.claim(connection, worker, queue, room)
            self._hand_out(claimed, worker)
            if self._options.queues_by is QueueOrder.STRICT and queue in self._managed.due():
                # It has more, and what has ended meanwhile makes room for that first.
                return

    def _managed_part(self, queue: str, want: int) -> int:
        """Return how many of `want` jobs to claim from the managed queue `queue`."""
        if not self._more:
            # Nothing ahead of need: a permit that waits here is missed elsewhere.
            return min(want, self._pool.room(0))
        # Its part; of one free slot, with that probability.
        share = self._lanes.part(queue, self._busy)
        return math.floor(want * share + random.random()) if 0 < share < 1 else round(want * share)

    async def _call_others(self, every: float = CALL_EVERY) -> None:
        """Tell other workers of what this one leaves behind in managed queues; of each once in `every` seconds at most."""
        if queues := self._managed.left_behind(every=every):
            async with self._lock:
                await fetch(await self._connected(), self._schema, "wake_tell", channel=self._schema, queues=queues)

    def _scan(self, want: int, *, warm: int) -> Scan:
        """Return what to read: lanes that may have due jobs, enough for `want`, and `warm` of those that had some lately."""
        # Of most it is known that they have one.
        most = min(MOST_LANES, max(LEAST_LANES, 2 * want))
        return self._cursor.plan(*self._lanes.arrays(most, warm=warm))

    async def _exchange(
        self,
        connection: Connection,
        successes: list[Success],
        scan: Scan,
        want: int,
        beside: dict[str, Any] | None = None,
    ) -> None:
        """Acknowledge and claim; and while the server is at it, hand out what the last statement claimed.

        `beside`: a claim of a managed queue, to be made in the same commit.
        """
        begun = time.monotonic()
        # A notification from here on is about jobs that this claim may not see.
        told = self._told
        if want > 0:
            self._told = False
        worker = self._lease.worker
        answer = asyncio.ensure_future(self._ask(connection, worker, successes, scan, want=want, beside=beside))
        try:
            # Let it be sent.
            await asyncio.sleep(0)
            self._deliver()
            claimed, refused = await answer
        except asyncio.CancelledError:
            # It must not go on without the lock.
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise
        except psycopg.errors.LockNotAvailable:
            # A finished job is locked by somebody's transaction, or a key is.
            if not await self.ended.set_aside(connection, successes):
                raise
            self._told = self._told or told
            return
        self._error = None
        # What is refused goes on running, as far as the database knows, until its setback is written.
        lost = {setback.id for setback in refused}
        self._managed.ended(success for success in successes if success.id not in lost)
        now = time.monotonic()
        self._pace.measured(now, self.ended.written(successes, claimed, refused), now - begun)
        if self._metrics is not None:
            self._metrics.round_trip(now - begun)
        if claimed.sight is not None:
            if len(self._managed):
                self._busy = frozenset(scan.queues[place] for place, _ in claimed.sight.counts)
            self._cursor.read(scan, claimed.sight)
            self._lanes.claimed(scan, claimed.sight)
            if told and not len(claimed):
                # Somebody else may have it, or it lies below what we read.
                self._survey.hasten()
            self.claims.made(begun, want=want, got=len(claimed), complete=self._lanes.complete)
        elif want > 0:
            # A bad outcome took the claim with it.
            self._told = self._told or told
        self._claimed = (claimed, worker)

    async def _ask(
        self,
        connection: Connection,
        worker: UUID,
        successes: list[Success],
        scan: Scan,
        *,
        want: int,
        beside: dict[str, Any] | None,
    ) -> tuple[Claimed, list[Setback]]:
        if beside is not None:
            try:
                claimed, rows = await self._ledger.advance_and_claim(
                    connection, worker, successes, scan, want=want, claim=beside
                )
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.LockNotAvailable):
                    self._managed.locked(beside["queue"])
                else:
                    self._managed.failed(beside["queue"])
                if is_connection_loss(error, connection) and not isinstance(error, psycopg.errors.LockNotAvailable):
                    raise
                # A lock was not free, or an outcome cannot be stored: those by themselves, and the claim in its own time.
            else:
                self._managed.ended(successes, seen_by=beside["queue"])
                self._hand_out(self._managed.took(beside, rows), worker)
                return claimed, []
        return await self._ledger.advance(connection, worker, successes, scan, want)

    def _deliver(self) -> None:
        """Hand out what was claimed."""
        if self._claimed is None:
            return
        (claimed, worker), self._claimed = self._claimed, None
        self._hand_out(claimed, worker)

    def _hand_out(self, claimed: Claimed, worker: UUID) -> None:
        if not len(claimed):
            return
        jobs, expired = claimed.jobs()
        if self._metrics is not None:
            self._metrics.claimed(jobs)
            self._metrics.claimed(expired)
        for job in expired:
            self.ended.set_back(Setback(job.id, job.claims, Ending.EXPIRE, message="expired"))
        if not jobs:
            return
        # While the statement was on its way, everything may have stood still.
        if self.held or self.quiet or not self._lease.fresh:
            for job in jobs:
                self.ended.set_back(Setback(job.id, job.claims, Ending.RELEASE))
        else:
            self._pool.give(jobs, worker)

    async def _idle(self) -> None:
        """Sleep until there is reason for a round: an outcome, a notification, the next due job, or the poll."""
        # However seldom the poll: the account, the progress and the proof that the database answers are not to wait for it.
        wake_at = self._reconcile_at
        if self._want() > 0:
            if self._lanes.unread:
                async with self._lock:
                    await self._due.look_up(await self._connected())
            wake_at = min(wake_at, self._due.next_at)
        if self._want() > 0 and self._pool.room(0) > 0:
            wake_at = min(wake_at, self._managed.due_at)
        if self._managed.left:
            wake_at = min(wake_at, time.monotonic() + CALL_EVERY)
        self.ended.more.clear()
        if self.ended.writable or ((self._more or self._lanes.unread) and self._want() > 0):
            # Told of while that was looked up.
            return
        self._trying_since = None
        waits = [asyncio.ensure_future(event.wait()) for event in (self.ended.more, self._woken)]
        self._sleeping = True
        try:
            patience = max(wake_at - time.monotonic(), 0.001)
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleeping = False
            for wait in waits:
                wait.cancel()
        self._woken.clear()

    # --- keeping the account straight --------------------

    async def _connected(self) -> Connection:
        self._asked = True
        self._pulse.turn()
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("advance")
        return self._connection

    async def _reconcile(self) -> None:
        """Read the queues' rules anew, write progress, and give back claims that nobody here has."""
        self._deliver()
        async with self._lock:
            connection = await self._connected()
            await self._read_rules(connection)
            await self._account.write_progress(connection)
            self.ended.recount()
            strays = await self._account.strays(connection, self.ended.names)
            self._managed.strayed(stray.id for stray in strays)
            for stray in strays:
                self.ended.set_back(stray)
        quiet = not self._pool.held and self._listening()
        self._reconcile_at = time.monotonic() + (QUIET_RECONCILE_INTERVAL if quiet else RECONCILE_INTERVAL)

    async def _read_rules(self, connection: Connection) -> None:
        """Learn which queues are paused, and which are managed."""
        if self._lanes.refresh(await fetch(connection, self._schema, "queue_rules")):
            self._cursor.doubt()
        managed = self._lanes.managed
        if new := sorted(managed.difference(self._managed.queues)):
            # What is claimed and not handed out is running, too.
            worker = self._lease.worker
            self._managed.adopt(await fetch(connection, self._schema, "manage_own", worker=worker, queues=new))
        self._managed.refresh(managed)

    async def _drained(self) -> bool:
        """Tell whether no served queue has a job that is due, and nobody is running one."""
        if len(self.ended) or self._pool.held:
            return False
        await self._reconcile()
        if self.ended.setbacks or self._more:
            return False
        async with self._lock:
            rows = await fetch(
                await self._connected(),
                self._schema,
                "drained",
                queues=list(self._options.queues) if self._options.queues is not None else None,
            )
        if not rows[0][0]:
            self._survey.told_of_many()
        return bool(rows[0][0])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be told to the database or, through it, to other workers."""
        return not len(self.ended) and not self._managed.left

    def leave(self) -> None:
        """From here on nothing is claimed, and the others are told of what is put back."""
        self._ledger.for_others = True

    async def flush(self) -> None:
        """Record a batch of what has ended, claiming nothing; used while stopping. Errors are logged, for another try."""
        self._pulse.turn()
        if not self.ended.writable and not self._managed.left:
            # Locked ones, if any, come back by themselves.
            await asyncio.sleep(0.02)
            return
        try:
            if self.ended.writable:
                await self._step(0)
            # There may be no later round to call them in.
            await self._call_others(every=0.0)
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._lost(error, 1)

    async def close(self) -> None:
        """Close the connection."""
        await self._survey.close()
        await close(self._connection)

    # --- what stands still --------------------

    def trouble(self) -> Trouble | None:
        """Return since when and why the database is wanted and does nothing for this loop, if that is so."""
        return Trouble(self._cause(), self._trying_since) if self._trying_since is not None else None

    def outcomes_trouble(self) -> Trouble | None:
        """Return since when and why outcomes wait to be written down, if they do."""
        if self.ended.waiting_since is None:
            return None
        return Trouble(f"{len(self.ended)} outcomes wait: {self._cause()}", self.ended.waiting_since)

    def _cause(self) -> str:
        where = self._database.connecting.get("advance")
        now = f"waiting for a connection to {where}" if where else self._connection and self._connection.waiting_for
        return "; ".join(part for part in (self._error, now) if part) or "no round trip is under way"
