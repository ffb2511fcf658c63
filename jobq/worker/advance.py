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
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from jobq.backoff import Backoff
from jobq.worker.account import Account
from jobq.worker.aging import Aging
from jobq.worker.attempts import ROUND, Attempts
from jobq.worker.brisk import LastClaim
from jobq.worker.cursor import COSTLY, NOWHERE, SHARE, Cursor, Scan, Sight
from jobq.worker.database import Connection, Database, close, fetch
from jobq.worker.deferred import Deferred, Written
from jobq.worker.delivery import Delivery
from jobq.worker.due import Due
from jobq.worker.ended import Ended
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Progress, Recorded, Setback, Success
from jobq.worker.lanes import Lanes
from jobq.worker.lease import Lease
from jobq.worker.managed import CALL_EVERY, Managed
from jobq.worker.metrics import Metrics
from jobq.worker.options import WorkerOptions
from jobq.worker.outcomes import MAX_BATCH, Claimed, Ledger, scan_parameters
from jobq.worker.pace import Pace
from jobq.worker.pool import RunnerPool
from jobq.worker.problems import Problems
from jobq.worker.refused import ALL as CLAIM
from jobq.worker.refused import RefusedClaims
from jobq.worker.served import QueueOrder
from jobq.worker.stalls import Repeats, Trouble
from jobq.worker.survey import Survey
from jobq.worker.vitals import Pulse

logger = logging.getLogger("jobq.worker")

T = TypeVar("T")

# Acknowledgements wait this long for company, unless a slot idles.
FLUSH_AFTER = 0.002
# How often queues are read anew, and the jobs held compared with those that the database thinks we hold.
RECONCILE_INTERVAL = 5.0
# The same while nothing runs here and notifications come. Less than the ten seconds after which a worker without an answer
# of the database is not ready.
QUIET_RECONCILE_INTERVAL = 8.0
# How often what running jobs say of their progress is written down.
PROGRESS_INTERVAL = 1.0
# Seconds after which no further managed queue is claimed from in a round.
MANAGED_SHARE = 0.02
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
        problems: Problems | None = None,
    ) -> None:
        self._options = options
        self._database = database or Database(options.settings)
        self._schema = options.settings.schema
        self._pool = pool
        self._lease = lease
        self._listening = listening
        self._metrics = metrics
        self.problems = problems or Problems()
        """What this worker cannot do at present, whatever part of it: for its row."""
        self._ledger = Ledger(self._schema)
        self._aging = Aging(options.aging) if options.aging is not None else None
        self._lanes = Lanes.of(options, self._aging)
        self._managed = Managed(self._schema, options.poll_interval, self._lanes.caps)
        self._managed.problems = self.problems
        self._busy: frozenset[str] = frozenset()
        """Of which plain queues the last claim brought jobs, while there are managed ones."""
        self._rules: str | None = None
        """When the queues' rules were last changed, as the heartbeat told."""
        self._pace = Pace()
        self._cursor = Cursor()
        self._survey = Survey(self._database, self._schema, self._cursor, self._found_below)
        self._told: bool = False
        """Whether a notification is why there should be more."""
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._repeats = Repeats()
        self._attempts = Attempts(pulse, self.problems, self._repeats)
        self._refused = RefusedClaims(self._schema, self._ledger, self.problems, self._repeats)
        deferred = Deferred(
            self._database,
            self._ledger,
            lease,
            problems=self.problems,
            repeats=self._repeats,
            on_written=self._written_apart,
        )
        self.ended = Ended(self._ledger, lease, metrics, self._repeats, deferred)
        self._account = Account(self._schema, lease, pool)
        self._woken = asyncio.Event()
        self._more = True
        """Whether the last claim found as many jobs as it wanted, so that there may be more."""
        self._reconcile_at = 0.0
        self._lanes_at = 0.0
        self._lanes_took = 0.0
        """Seconds that the last reading of the lanes took."""
        self._due = Due(options.poll_interval, listening)
        self._delivery = Delivery(pool, self.ended, self._due, metrics, self._closed)
        self.claims = LastClaim()
        self.held: str | None = None
        """Why nothing may be claimed at present; None when claims go on."""
        self.quiet = False
        """Whether an operator wants nothing more to be claimed."""

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
        if kind == "insert":
            if self._managed.hear(queue):
                self._woken.set()
                return
            if not self._lanes.hear(queue):
                return
        else:
            self._reconcile_at = 0.0
            self._managed.hear_all()
        self._more = self._told = True
        self._due.forget()
        self._woken.set()

    def found(self, queue: str) -> bool:
        """The sentinel has seen due jobs. Return whether this loop looks for them; when the next ones are due, it is told."""
        if self._managed.hear(queue):
            self._woken.set()
            return False
        if not self._lanes.hear(queue):
            return False
        # Without room, too: what makes some need be nothing that is written, and so no claim comes of itself.
        self._more = True
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
            self._more = True
            self._due.forget()
            self._woken.set()
        if rules != self._rules:
            self._rules = rules
            self._lanes_at = self._reconcile_at = 0.0
            self._woken.set()
        self._managed.refresh(self._lanes.managed)

    def recorded(self, recorded: Recorded) -> None:
        """A runner has written an outcome down itself."""
        self.ended.recorded(recorded)
        self._managed.ended([recorded])

    def ready(self) -> None:
        """A runner has become ready."""
        self._more = True
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
        self._more = True
        self._woken.set()

    def be_quiet(self, quiet: bool) -> None:
        """Claim nothing, and leave to the others what is claimed and has not started; or claim again."""
        self.quiet = self._ledger.for_others = quiet
        if quiet:
            self._pool.give_back()
        else:
            self._more = True
            self._due.forget()
        self._woken.set()

    def _written_apart(self, written: Written) -> None:
        self.ended.written_apart(written)
        self._managed.ended(written.outcomes)
        self._put_back(written.queues)
        # So many may have waited that nothing was claimed.
        self._look_again()

    def _put_back(self, queues: Iterable[str]) -> None:
        """Jobs of these queues can be claimed again, by our own doing: no notification tells it, and the queue may be in no
        lane, if it had no ready job when the lanes were read.
        """
        for queue in queues:
            if not self._managed.hear(queue):
                self._lanes.hear(queue)
            self._look_again()
            self._woken.set()

    def _found_below(self) -> None:
        self._more = True
        self._woken.set()

    async def forget(self) -> None:
        """Drop the jobs and the outcomes of an identity that is no longer ours: the fence would refuse them."""
        async with self._lock:
            self._delivery.forget()
            self.ended.forget()
            self._account.forget()
            self._managed.forget()

    # --- the loop --------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Advance until `stop` is set or, with `drain`, until no work is left."""
        while not stop.is_set():
            try:
                self._attempts.begin()
                nothing_to_do = await self._round()
                self._attempts.ended()
                if nothing_to_do:
                    if self._options.drain and await self._drained():
                        return
                    await self._idle()
                self._attempts.rested()
            except (psycopg.Error, OSError, TimeoutError) as error:
                await self._failed(error)
        self._delivery.deliver()

    async def _failed(self, error: BaseException) -> None:
        """A round has failed. It is not known what it would have found: do not sleep over that."""
        self._attempts.failures += 1
        failures = min(self._attempts.failures, 6)
        if classify(error, self._connection) is ErrorKind.CONNECTION:
            await self._lost(error)
            await asyncio.sleep(_RECONNECT.delay(failures))
        else:
            self._attempts.failed(ROUND, error)
            self._look_again()
            await asyncio.sleep(min(0.05 * 2**failures, 0.5))

    def _look_again(self) -> None:
        self._more = True
        self._due.forget()

    async def _attempt(self, what: str, work: Awaitable[T], connection: Connection) -> T | None:
        """Do one piece of a round that nothing else is to suffer from. Raises psycopg.Error when the connection is lost."""
        well, done = await self._attempts.of(what, work, connection)
        if not well:
            self._look_again()
        return done

    async def _lost(self, error: BaseException) -> None:
        self._delivery.deliver()
        self._cursor.forget()
        self._attempts.lost(error)
        self._reconcile_at = 0.0
        self._account.doubt()
        self._refused.forget()
        # What was claimed is unknown, and so is what was notified meanwhile; and only a claim can show that claims work.
        self._look_again()
        connection, self._connection = self._connection, None
        await close(connection)

    async def _round(self) -> bool:
        """Do one round. Return whether there is nothing to do now."""
        if time.monotonic() >= self._reconcile_at:
            await self._reconcile()
        want = self._want()
        if want > 0 and self._managed.due_at <= time.monotonic():
            # What has ended makes room in its own queue, and is written in one commit with the claim into that room: `_step`.
            await self._claim_managed(beside=self._managed.queue_of(self.ended.successes))
            want = self._want()
        if self.ended.writable or (want > 0 and self._more):
            await self._step(want)
        else:
            self._delivery.deliver()
        if self._managed.left:
            await self._call_others()
        if self.ended.writable:
            await self._gather()
            return False
        return not (self._more and self._want() > 0)

    def _closed(self) -> bool:
        return bool(self.held) or self.quiet or not self._lease.fresh

    def _want(self) -> int:
        if self._closed() or not self._pool.ready:
            return 0
        if self._refused.closed_until > time.monotonic() or self.ended.deferred.too_many:
            return 0
        return max(0, min(MAX_BATCH, self._pool.room(self._pace.prefetch()) - len(self._delivery)))

    async def _gather(self) -> None:
        """Let outcomes collect for a moment, unless a slot idles for want of the next claim."""
        if len(self._delivery):
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
                self._delivery.deliver()
                settled, found = await self.ended.settle(connection)
                self._managed.ended(settled)
                if any(setback.ending is not Ending.FAIL for setback in settled):
                    # Some may be ready again at once, others sooner than what was next.
                    self._more = True
                    self._due.forget()
                self._put_back(found.queues)
                self._attempts.error = None
            if self.ended.looks_aside:
                await self._attempt("look for locked jobs", self.ended.take_back(connection), connection)
            if want > 0 and self._refused.due_at <= time.monotonic():
                self._delivery.deliver()
                worker = self._lease.worker
                self._delivery.hand_out(await self._refused.retry(connection, worker), worker)
                want = min(want, self._want())
            if want > 0 and self._aging is not None and self._aging.due:
                look = self._aging.look(connection, self._schema, self._cursor.plan(*self._lanes.arrays()))
                await self._attempt("look at the heads", look, connection)
            successes = self.ended.batch()
            if successes and self.ended.wary:
                await self._attempt("look for locked jobs", self.ended.set_aside(connection, successes), connection)
                successes = self.ended.batch()
            if successes and self._refused.looking:
                # Not in one statement with a claim that may be refused.
                await self._exchange(connection, successes, NOWHERE, 0)
                want, successes = min(want, self._want()), []
            want = min(want, self._refused.most)
            queue = self._managed.queue_of(successes) if not connection.pooled else None
            part = self._managed_part(queue, want) if queue is not None and want > 0 else 0
            want -= part
            scan = self._scan() if want > 0 else NOWHERE
            if want > 0 and not self._pace.prefetch():
                # These take long: no queue is to have all slots for as long.
                want = self._lanes.first(want)
            if not successes and not scan.queues:
                # Without room it is not known that there is nothing more.
                self._more = self._more and want <= 0
                self._delivery.deliver()
                return
            beside = None
            if queue is not None and part > 0:
                beside = self._managed.begin(self._lease.worker, queue, part, ending=successes)
            await self._exchange(connection, successes, scan, max(want, 0), beside)
        if not (self.ended.writable or (self._more and self._want() > 0)):
            self._delivery.deliver()

    async def _claim_managed(self, beside: str | None = None) -> None:
        """Claim from the managed queues that are due: a fair share while plain ones have more, else what can start at once.

        `beside`: not from this one, which is about to be claimed from with its own acknowledgements.
        """
        queues = self._lanes.among(self._managed.due(), beside)
        if not queues:
            return
        # In whose name and into which room is known only when nothing is on its way.
        self._delivery.deliver()
        until = time.monotonic() + MANAGED_SHARE
        for queue, share in queues:
            if time.monotonic() > until:
                # The others are due still, in the next round: acknowledgements and plain jobs are not to wait for all.
                return
            async with self._lock:
                connection = await self._connected()
                if (room := math.ceil(self._managed_part(queue, self._want()) * share)) <= 0:
                    continue
                worker = self._lease.worker
                claimed = await self._managed.claim(connection, worker, queue, room)
            self._delivery.hand_out(claimed, worker)
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

    def _scan(self) -> Scan:
        """Return what to read: now and then from the beginning, and if that takes long, somewhere else."""
        lanes = self._lanes.arrays()
        full = bool(lanes[0]) and self._cursor.full_due
        if full and self._cursor.full_is_costly:
            self._survey.begin(lanes)
            full = False
        return self._cursor.plan(*lanes, full=full)

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
        if want > 0:
            self._due.looked()
        # A notification from here on is about jobs that this claim may not see.
        told = self._told
        if want > 0:
            self._more = self._told = False
        worker = self._lease.worker
        answer = asyncio.ensure_future(self._ask(connection, worker, successes, scan, want=want, beside=beside))
        try:
            # Let it be sent.
            await asyncio.sleep(0)
            self._delivery.deliver()
            claimed, refused = await answer
        except asyncio.CancelledError:
            # It must not go on without the lock.
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            self._more, self._told = True, told
            if successes:
                self._refused.looking = self._refused.looking or want > 0
                await self._not_acknowledged(connection, successes, error)
            else:
                self._delivery.keep(await self._refused.failed(connection, worker, scan, want, error), worker)
                if self._refused.closed_until > time.monotonic():
                    self._attempts.failed(CLAIM, error)
            return
        self._attempts.error = None
        # What is refused goes on running, as far as the database knows, until its setback is written.
        lost = {setback.id for setback in refused}
        self._managed.ended(success for success in successes if success.id not in lost)
        now = time.monotonic()
        self._pace.measured(now, self.ended.written(successes, claimed, refused), now - begun)
        if self._metrics is not None:
            self._metrics.round_trip(now - begun)
        if claimed.sight is not None:
            self._saw(scan, claimed.sight, len(claimed), now - begun, told=told)
        elif want > 0:
            # A bad outcome took the claim with it; or it was the claim that is refused.
            self._more, self._told = True, told
            self._refused.looking = True
        if want > 0 and claimed.sight is not None:
            self.claims.made(begun, want=want, got=len(claimed))
            self._more = self._more or self.claims.full
        self._delivery.keep(claimed, worker)

    async def _not_acknowledged(self, connection: Connection, successes: list[Success], error: psycopg.Error) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable) and await self.ended.set_aside(connection, successes):
            return
        # Neither a job nor its key is locked, but something else that the statement needs; or it was no lock at all.
        self.ended.defer(successes, error)

    def _saw(self, scan: Scan, sight: Sight, jobs: int, seconds: float, *, told: bool) -> None:
        if len(self._managed):
            self._busy = frozenset(scan.queues[place] for place, _ in sight.counts)
        self._refused.went_well()
        self._cursor.read(scan, sight)
        self._lanes.claimed(scan, sight)
        if scan.full:
            self._cursor.read_fully(seconds)
        elif told and not jobs:
            # Somebody else may have it, or it lies below what we read.
            self._cursor.hasten()

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
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                # A lock was not free, or an outcome cannot be stored: those by themselves, and the claim in its own time.
            else:
                self._managed.ended(successes, seen_by=beside["queue"])
                self._delivery.hand_out(self._managed.took(beside, rows), worker)
                return claimed, []
        return await self._ledger.advance(connection, worker, successes, scan, want, refused=self._refused.ids)

    async def _idle(self) -> None:
        """Sleep until there is reason for a round: an outcome, a notification, the next due job, or the poll."""
        # However seldom the poll: the account, the progress and the proof that the database answers are not to wait for it.
        wake_at = self._reconcile_at
        if self._want() > 0:
            wake_at = min(wake_at, self._cursor.hastened, await self._due.next(self._look_up_due))
            wake_at = min(wake_at, self._refused.due_at)
        if self._want() > 0 and self._pool.room(0) > 0:
            wake_at = min(wake_at, self._managed.due_at)
        if self._refused.closed_until > time.monotonic():
            wake_at = min(wake_at, self._refused.closed_until)
        if self._managed.left:
            wake_at = min(wake_at, time.monotonic() + CALL_EVERY)
        if self._more:
            # Told of while that was looked up, perhaps of a job that is due sooner.
            self._due.forget()
        self.ended.more.clear()
        if self.ended.writable or (self._more and self._want() > 0):
            return
        self._attempts.since = None
        waits = [asyncio.ensure_future(event.wait()) for event in (self.ended.more, self._woken)]
        try:
            patience = max(wake_at - time.monotonic(), 0.001)
            done, _ = await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not done:
            if self._more:
                self._due.forget()
            soon = min(self._cursor.hastened, self._refused.due_at)
            self._more = self._due.passed() or self._more or time.monotonic() >= soon
        self._woken.clear()

    async def _look_up_due(self) -> float:
        lanes = self._lanes.arrays()
        if not lanes[0]:
            return math.inf
        async with self._lock:
            connection = await self._connected()
            scan, begun = self._scan(), time.monotonic()
            rows = await fetch(connection, self._schema, "next_due", **scan_parameters(scan))
        if scan.full:
            self._cursor.read_fully(time.monotonic() - begun)
            if rows[0][0] is not None and rows[0][0] <= 0:
                # Perhaps below what claims read.
                self._cursor.forget()
        due: float | None = rows[0][0]
        return math.inf if due is None else due

    # --- keeping the account straight --------------------

    async def _connected(self) -> Connection:
        self._attempts.asked()
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("advance")
        return self._connection

    async def _reconcile(self) -> None:
        """Read queues and settings anew, write progress, and give back claims that nobody here has."""
        self._delivery.deliver()
        async with self._lock:
            connection = await self._connected()
            await self._attempt("read the queues", self._read_lanes(connection), connection)
            await self._attempt("write progress", self._account.write_progress(connection), connection)
            self.ended.recount()
            strays = (
                await self._attempt("compare jobs", self._account.strays(connection, self.ended.names), connection)
                or []
            )
            self._managed.strayed(stray.id for stray in strays)
            for stray in strays:
                self.ended.set_back(stray)
        quiet = not self._pool.held and self._listening()
        self._reconcile_at = time.monotonic() + (QUIET_RECONCILE_INTERVAL if quiet else RECONCILE_INTERVAL)

    async def _read_lanes(self, connection: Connection) -> None:
        """Learn which queues there are; not so often where dead entries make that slow."""
        begun = time.monotonic()
        if begun < self._lanes_at:
            return
        rows = await fetch(connection, self._schema, "lanes")
        if self._lanes.refresh((row[0], row[1], row[2]) for row in rows):
            self._more = True
        managed = self._lanes.managed
        if new := sorted(managed.difference(self._managed.queues)):
            # What is claimed and not handed out is running, too.
            worker = self._lease.worker
            self._managed.adopt(await fetch(connection, self._schema, "manage_own", worker=worker, queues=new))
        self._managed.refresh(managed)
        now = time.monotonic()
        # The less of two: one reading may have waited for a lock, which is no reason to read less often.
        took, self._lanes_took = min(now - begun, self._lanes_took), now - begun
        self._lanes_at = now + SHARE * took if took > COSTLY else 0.0

    async def _drained(self) -> bool:
        """Tell whether no served queue has a job that is due, and nobody is running one."""
        deferred = self.ended.deferred
        if len(self.ended) > len(deferred) or not deferred.tried or self._pool.held:
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
                leaving=[*self._refused.ids, *(id_ for id_, _ in self.ended.deferred.names())],
            )
        return bool(rows[0][0])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be told to the database or, through it, to other workers."""
        return self.ended.hopeless and not self._managed.left

    def leave(self) -> None:
        """From here on nothing is claimed, and the others are told of what is put back."""
        self._ledger.for_others = True
        self.ended.deferred.leave()

    async def flush(self) -> None:
        """Record a batch of what has ended, claiming nothing; used while stopping. Errors are logged, for another try."""
        self._attempts.begin()
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
            self._attempts.failures = 0
            await self._failed(error)

    async def close(self) -> None:
        """Close the connection."""
        await self._survey.close()
        await self.ended.deferred.close()
        await close(self._connection)

    # --- what stands still --------------------

    def trouble(self) -> Trouble | None:
        """Return since when and why the database is wanted and does nothing for this loop, if that is so."""
        return self._attempts.trouble(self._doing())

    def outcomes_trouble(self) -> Trouble | None:
        """Return since when and why outcomes wait to be written down, if they do."""
        if self.ended.waiting_since is None:
            return None
        return Trouble(
            f"{len(self.ended)} outcomes wait: {self._attempts.cause(self._doing())}", self.ended.waiting_since
        )

    def _doing(self) -> str | None:
        where = self._database.connecting.get("advance")
        return f"waiting for a connection to {where}" if where else getattr(self._connection, "waiting_for", None)
