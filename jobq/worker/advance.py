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
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from jobq.backoff import Backoff
from jobq.worker.account import Account
from jobq.worker.aging import Aging
from jobq.worker.attempts import ROUND, Attempts
from jobq.worker.brisk import LastClaim
from jobq.worker.cursor import NOWHERE, Cursor, Scan, Sight
from jobq.worker.database import Connection, Database, close, fetch
from jobq.worker.deferred import Deferred, Written
from jobq.worker.delivery import Delivery
from jobq.worker.due import Due, head_start
from jobq.worker.ended import Ended
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Job, Progress, Recorded, Setback, Success
from jobq.worker.lanes import MOST_LANES, Lanes
from jobq.worker.lease import Lease
from jobq.worker.managed import CALL_EVERY, Managed
from jobq.worker.metrics import Metrics
from jobq.worker.options import WorkerOptions
from jobq.worker.outcomes import MAX_BATCH, Claimed, Ledger
from jobq.worker.pace import Pace
from jobq.worker.parked import Parked
from jobq.worker.pool import RunnerPool
from jobq.worker.problems import Problems
from jobq.worker.refused import ALL as CLAIM
from jobq.worker.refused import RefusedClaims
from jobq.worker.served import QueueOrder
from jobq.worker.stalls import Repeats, Trouble
from jobq.worker.starts import REFUSED
from jobq.worker.survey import Survey
from jobq.worker.suspects import PATIENCE
from jobq.worker.vitals import Pulse

logger = logging.getLogger("jobq.worker")

T = TypeVar("T")

# Acknowledgements wait this long for company, unless a slot idles.
FLUSH_AFTER = 0.002
# However few jobs a claim wants, it looks at so many lanes.
LEAST_LANES = 64
# Lanes that had jobs lately, at which an acknowledgement that claims looks as well: inserts may be silent.
WARM_LANES = 64
# How often the queues' rules are read again, and the jobs held compared with those that the database thinks we hold.
RECONCILE_INTERVAL = 5.0
# The same while nothing runs here and notifications come. Less than the ten seconds after which a worker without an answer
# of the database is not ready.
QUIET_RECONCILE_INTERVAL = 8.0
# Seconds from an outcome that the fence refused to the comparison that it calls for: more of them may follow.
ODD_RECONCILE_AFTER = 0.5
# How many managed queues are claimed from one after the other, however long that takes; and how long (seconds) more of them may
# take before what else there is to do has its turn.
MANAGED_QUEUES, MANAGED_SECONDS = 8, 0.02
# How often what running jobs say of their progress is written down.
PROGRESS_INTERVAL = 1.0
# Seconds from a failed statement to the next look at all lanes.
LOOK_AGAIN = 0.1
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
        self._ledger = Ledger(self._schema, options.park_patience)
        self._aging = Aging(options.aging) if options.aging is not None else None
        self._lanes = Lanes.of(options, self._aging)
        self._managed = Managed(self._schema, options.poll_interval, self._lanes.caps, listening=listening)
        self._managed.problems = self.problems
        self._parked = Parked(options, pool, self._managed)
        self._parked.problems = self.problems
        self._busy: frozenset[str] = frozenset()
        """Of which plain queues the last claim brought jobs, while there are managed ones."""
        self._rules: str | None = None
        """When the queues' rules were last changed, as the heartbeat told."""
        self._pace = Pace()
        self._cursor = Cursor()
        self._survey = Survey(self._database, self._schema, self._cursor, self._lanes, self.poke)
        self._told: bool = False
        """Whether a notification is why there should be more."""
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._repeats = Repeats()
        self._losses = 0
        """How many sessions in a row acknowledgements have lost."""
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
        self.ended = Ended(self._ledger, lease, metrics, self._repeats, deferred, tracebacks=options.log_tracebacks)
        self._account = Account(self._schema, lease, pool)
        self._account.problems = self.problems
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
        self._delivery = Delivery(pool, self.ended, metrics, self._closed, self.poke)
        self.claims = LastClaim()
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
            self._hear(queue)
            return
        if kind == "parked":
            if self._parked.hear(queue):
                self._woken.set()
            return
        self._managed.hear_all(missed=not payload)
        if kind != "many":
            self._reconcile_at = 0.0
            self._parked.wanted = True
        self._survey.told_of_many()
        self._woken.set()

    def lowered(self, queue: str, run_at: int) -> None:
        """Jobs of `queue` can be claimed again at their old places, the first at this run_at in microseconds."""
        self._cursor.lower(queue, run_at)
        self._managed.lower(queue)
        self.notified(f"insert {queue}")

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

    def heard(self, paused: list[str], rules: str | None) -> None:
        """A heartbeat brought back which queues are paused now, and when the queues' rules were last changed."""
        if self._lanes.pause(paused):
            self._cursor.doubt()
            self._parked.wanted = True
            self._woken.set()
        if rules != self._rules:
            self._rules = rules
            self._reconcile_at = 0.0
            self._woken.set()
        managed = self._lanes.managed
        if not managed <= self._managed.queues:
            # What runs here of a queue counts before it is claimed from: `_read_rules`.
            self._reconcile_at = 0.0
            self._woken.set()
        self._managed.refresh(managed & self._managed.queues)

    def recorded(self, recorded: Recorded) -> None:
        """A runner has written an outcome down itself."""
        self.ended.recorded(recorded)
        self._managed.ended([recorded])

    def ready(self) -> None:
        """A runner has become ready, perhaps with newer code."""
        self._parked.wanted = True
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

    def _written_apart(self, written: Written) -> None:
        self.ended.written_apart(written)
        self._managed.ended(written.outcomes)
        self._put_back(written.queues, written.lowered)
        # So many may have waited that nothing was claimed.
        self._look_again()

    def _put_back(self, queues: Collection[str], lowered: Iterable[tuple[str, int]]) -> None:
        """Jobs of `queues` can be claimed again, by our own doing; in those of `lowered` they keep their places."""
        for queue, run_at in lowered:
            self._cursor.lower(queue, run_at)
            self._managed.lower(queue)
        for queue in queues:
            if not self._managed.hear(queue):
                self._lanes.hear(queue)
        if queues:
            self._look_again()
        self._woken.set()

    async def forget(self) -> None:
        """Drop the jobs and the outcomes of an identity that is no longer ours: the fence would refuse them."""
        async with self._lock:
            self._delivery.forget()
            self.ended.forget()
            self._account.forget()
            self._managed.forget()
            self._pool.starts.withdraw()

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
            self._delivery.deliver()
            self._look_again()
            await asyncio.sleep(min(0.05 * 2**failures, 0.5))

    def _look_again(self) -> None:
        self._lanes.poll()
        self._survey.hasten(LOOK_AGAIN)

    async def _attempt(self, what: str, work: Awaitable[T], connection: Connection) -> T | None:
        """Do one piece of a round that nothing else is to suffer from. Raises psycopg.Error when the connection is lost."""
        well, done = await self._attempts.of(what, work, connection)
        if not well:
            self._look_again()
        return done

    async def _lost(self, error: BaseException) -> None:
        self._delivery.deliver()
        self._survey.stop()
        self._cursor.forget()
        self._attempts.lost(error)
        self._reconcile_at = 0.0
        self._account.doubt()
        self._managed.doubt()
        self._refused.forget()
        # What was claimed is unknown, and so is what was notified meanwhile; and only a claim can show that claims work.
        self._look_again()
        connection, self._connection = self._connection, None
        await close(connection)

    async def _round(self) -> bool:
        """Do one round. Return whether there is nothing to do now."""
        self._heed_oddities()
        if time.monotonic() >= self._reconcile_at:
            await self._reconcile()
        if self._want() > 0:
            self._due.wake()
            await self._look_around()
        want = self._want()
        if want > 0 and self._managed.due_at <= time.monotonic():
            # What has ended makes room in its own queue, and is written in one commit with the claim into that room: `_step`.
            beside = None if self._refused.any else self._managed.queue_of(self.ended.successes)
            await self._claim_managed(beside=beside)
            want = self._want()
        if self._pool.starts.held:
            await self._start()
            want = self._want()
        if want > 0 and self._parked.due_at <= time.monotonic():
            await self._claim_parked()
            want = self._want()
        if self.ended.writable or (want > 0 and (self._more or self._refused.due_at <= time.monotonic())):
            await self._step(want)
        else:
            self._delivery.deliver()
        if self._managed.left:
            await self._call_others()
        if self.ended.writable:
            await self._gather()
            return False
        return not (
            self._want() > 0 and (self._more or min(self._parked.due_at, self._refused.due_at) <= time.monotonic())
        ) and (self._closed() or not self._pool.starts.due(self._pool.startable, time.monotonic()))

    async def _look_around(self) -> None:
        """Read which lanes there are, and what is next in those that were read to their ends, when it is time for that."""
        now = time.monotonic()
        if now >= self._survey.due_at:
            self._delivery.deliver()
            async with self._lock:
                connection = await self._connected()
                await self._attempt("read which queues have jobs", self._survey.read(connection), connection)
        if (self._more or self.ended.writable) and now >= self._due.look_up_at:
            self._delivery.deliver()
            async with self._lock:
                connection = await self._connected()
                await self._attempt("look up what is due next", self._due.look_up(connection), connection)

    def _closed(self) -> bool:
        return bool(self.held) or self.quiet or not self._lease.fresh

    def _want(self) -> int:
        if self._closed() or not self._pool.ready:
            return 0
        if self._refused.closed_until > time.monotonic() or self.ended.deferred.too_many:
            return 0
        return max(0, min(MAX_BATCH, self._pool.room(self._pace.prefetch()) - len(self._delivery)))

    async def _gather(self) -> None:
        """Let outcomes collect for a moment, unless a slot idles because the next claim is missing."""
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
                written, settled = await self.ended.settle(connection)
                self._managed.ended(written)
                self._parked.refused(written)
                self._put_back(settled.queues, settled.lowered)
                if any(setback.ending not in (Ending.FAIL, Ending.SUCCEED) for setback in written):
                    # Some may be ready again at once, others sooner than what was next, mostly where others came from.
                    self._lanes.poll()
                    self._survey.hasten()
                self._attempts.error = None
            if self.ended.looks_aside:
                await self._attempt("look for locked jobs", self.ended.take_back(connection), connection)
            if want > 0 and self._refused.due_at <= time.monotonic():
                self._delivery.deliver()
                worker = self._lease.worker
                self._delivery.hand_out(await self._refused.retry(connection, worker, self._lanes.serves), worker)
                want = min(want, self._want())
            if want > 0 and self._aging is not None and self._aging.due:
                look = self._aging.look(
                    connection, self._schema, self._cursor.plan(*self._lanes.arrays(), remember=False)
                )
                await self._attempt("look at the heads", look, connection)
            successes = self.ended.batch()
            if successes and self.ended.wary:
                await self._attempt("look for locked jobs", self.ended.set_aside(connection, successes), connection)
                successes = self.ended.batch()
            if successes and self._refused.apart:
                # Not in one statement with a claim that may be refused.
                await self._exchange(connection, successes, NOWHERE, 0)
                want, successes = min(want, self._want()), []
            want = min(want, self._refused.most)
            queue = None if connection.pooled or self._refused.any else self._managed.queue_of(successes)
            part = self._part_beside(queue, want) if queue is not None and want > 0 else 0
            want -= part
            scan = self._scan(want, warm=WARM_LANES if successes else 0) if want > 0 else NOWHERE
            if not scan.queues:
                want = 0
            if want > 0 and not self._pace.prefetch():
                # These take long: no queue is to have all slots for as long.
                want = self._lanes.first(want)
            if not successes and not scan.queues:
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
        if self._managed.poll_due:
            async with self._lock:
                connection = await self._connected()
                await self._attempt("look at the queues with rules", self._managed.poll(connection), connection)
        queues = self._lanes.among(self._managed.due(), beside)
        if not queues:
            return
        begun = time.monotonic()
        # In whose name and into which room is known only when nothing is on its way.
        self._delivery.deliver()
        for number, (queue, share) in enumerate(queues, 1):
            async with self._lock:
                connection = await self._connected()
                part = self._managed_part(queue, self._want()) * share
                # Of one free slot, with that probability: the queues that come after get what is left.
                if (room := math.floor(part + random.random()) if share < 1 else math.ceil(part)) <= 0:
                    continue
                worker = self._lease.worker
                claimed = await self._managed.claim(connection, worker, queue, room)
            self._delivery.hand_out(claimed, worker)
            if self._options.queues_by is QueueOrder.STRICT and queue in self._managed.due():
                # It has more, and what has ended meanwhile makes room for that first.
                return
            if number >= MANAGED_QUEUES and time.monotonic() - begun > MANAGED_SECONDS:
                # The others stay due: what has ended, and plain jobs, are not to wait for all of them.
                return

    async def _claim_parked(self) -> None:
        """Claim jobs that other workers' code could not run: of what is free a half while there are others, too."""
        self._delivery.deliver()
        async with self._lock:
            connection = await self._connected()
            if (want := self._want()) <= 0:
                return
            worker = self._lease.worker
            claim = self._parked.claim(connection, worker, (want + 1) // 2 if self._more else want)
            claimed = await self._attempt("claim parked jobs", claim, connection)
        if claimed is not None:
            self._delivery.hand_out(claimed, worker)

    def _managed_part(self, queue: str, want: int) -> int:
        """Return how many of `want` jobs to claim from the managed queue `queue`."""
        if not self._more:
            # Nothing ahead of need: a permit that waits here is missed elsewhere.
            return min(want, self._pool.room(0))
        # Its part; of one free slot, with that probability.
        share = self._lanes.part(queue, self._busy)
        return math.floor(want * share + random.random()) if 0 < share < 1 else round(want * share)

    def _part_beside(self, queue: str, want: int) -> int:
        """The same when other managed queues are due: the room that its jobs leave is theirs, too, in the next round."""
        share = self._lanes.against(queue, self._managed.due())
        part = self._managed_part(queue, want)
        return math.floor(part * share + random.random()) if share < 1 else part

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
            self._delivery.deliver()
            claimed, refused = await answer
        except asyncio.CancelledError:
            # It must not go on without the lock.
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                self._lost_by(successes, want, error)
                raise
            self._told = self._told or told
            if successes:
                self._refused.looking = self._refused.looking or want > 0
                await self._not_acknowledged(connection, successes, error)
            else:
                self._delivery.keep(await self._refused.failed(connection, worker, scan, want, error), worker)
                if self._refused.closed_until > time.monotonic():
                    self._attempts.failed(CLAIM, error)
            return
        self._attempts.error = None
        if successes:
            self._losses = 0
        # What is refused or deferred goes on running, as far as the database knows, until it is written.
        lost = {setback.id for setback in refused} | {success.id for success in claimed.unwritten}
        self._managed.ended(success for success in successes if success.id not in lost)
        now = time.monotonic()
        self._pace.measured(now, self.ended.written(successes, claimed, refused), now - begun)
        if self._metrics is not None:
            self._metrics.round_trip(now - begun)
        if claimed.sight is not None:
            self._saw(scan, claimed.sight, len(claimed), told=told)
            self.claims.made(begun, want=want, got=len(claimed), complete=self._lanes.complete)
        elif want > 0:
            # A bad outcome took the claim with it; or it was the claim that is refused.
            self._told = self._told or told
            self._refused.looking = True
        self._delivery.keep(claimed, worker)

    def _lost_by(self, batch: list[Success], want: int, error: psycopg.Error) -> None:
        """A statement has lost its session. If the same happens again and again, a row of it may be the reason."""
        if not batch:
            self._refused.lost()
            return
        if want > 0:
            # Next time each by itself.
            self._refused.looking = True
        self._losses += 1
        if self._losses >= PATIENCE:
            self._losses = 0
            self.ended.defer(batch, error)

    async def _not_acknowledged(self, connection: Connection, successes: list[Success], error: psycopg.Error) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable) and await self.ended.set_aside(connection, successes):
            return
        # Neither a job nor its key is locked, but something else that the statement needs; or it was no lock at all.
        self.ended.defer(successes, error)

    def _saw(self, scan: Scan, sight: Sight, jobs: int, *, told: bool) -> None:
        if len(self._managed):
            self._busy = frozenset(scan.queues[place] for place, _ in sight.counts)
        self._refused.went_well()
        self._cursor.read(scan, sight)
        self._lanes.claimed(scan, sight)
        if told and not jobs:
            # Another worker may have it, or it lies below what we read.
            self._survey.hasten()

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
                kind = classify(error, connection)
                self._managed.failed(beside["queue"], error, kind)
                if kind is ErrorKind.CONNECTION:
                    raise
                # A row's lock was not free, or an outcome cannot be stored: those by themselves, and the claim in its own time.
            else:
                self._managed.ended(successes, seen_by=beside["queue"])
                self._delivery.hand_out(self._managed.took(beside, rows), worker)
                return claimed, []
        refused = self._refused
        if want > 0 and not successes and refused.lose_sessions:
            return await refused.find(connection, worker, scan) or Claimed(), []
        within = refused.within if want > 0 else None
        return await self._ledger.advance(connection, worker, successes, scan, want, refused=refused.ids, within=within)

    async def _start(self) -> None:
        """Give free slots to jobs whose keys hold until they start: first release the keys, then hand them out."""
        starts, now = self._pool.starts, time.monotonic()
        if self._closed() or not starts.due(self._pool.startable, now):
            return
        self._delivery.deliver()
        async with self._lock:
            connection = await self._connected()
            worker = self._lease.worker
            try:
                found = await starts.start(connection, self._schema, worker, self._pool.startable)
            except psycopg.Error as error:
                kind = classify(error, connection)
                self._not_started(starts.failed(error, kind), error)
                if kind is ErrorKind.CONNECTION:
                    raise
                return
            put_back: list[Job] = []
            if stubborn := starts.stubborn(time.monotonic()):
                back = starts.put_back(connection, self._schema, worker, stubborn)
                put_back = await self._attempt("put locked jobs back", back, connection) or []
        for job in found.expired:
            self.ended.set_back(Setback(job.id, job.claims, job.started, Ending.EXPIRE, message="expired"))
        for job in found.back:
            self.ended.set_back(Setback(job.id, job.claims, job.started, Ending.RELEASE))
        for job in put_back + found.lost:
            gone = Setback(job.id, job.claims, job.started, Ending.RELEASE)
            self._managed.ended([gone])
            if self._metrics is not None:
                self._metrics.ended(gone)
        if put_back:
            self._look_again()
        # While the statement was on its way, everything may have stood still. They have not started: settle.sql takes their
        # keys again.
        self._clear_starts(found.start)
        if self._closed() or self._lease.worker != worker:
            for job in found.start:
                self.ended.set_back(Setback(job.id, job.claims, job.started, Ending.RELEASE))
        elif found.start:
            self._pool.give(found.start, worker)

    def _not_started(self, refused: list[tuple[Job, float]], error: psycopg.Error) -> None:
        self._attempts.failed("start jobs with keys", error)
        for job, pause in refused:
            self.problems.note(REFUSED, error, job=job.id)
            self._repeats.warn("a job cannot be started: it is put back for a while", error, job=job.id)
            self.ended.set_back(Setback(job.id, job.claims, job.started, Ending.RELEASE, delay=pause))

    def _clear_starts(self, started: list[Job]) -> None:
        """These have started: what stood in their way is over."""
        if started:
            self.problems.clear("start jobs with keys")
        for job in started:
            self.problems.clear(REFUSED, job=job.id)

    def _heed_oddities(self) -> None:
        """Compare with the database soon if it refused an outcome."""
        if self.ended.odd:
            self.ended.odd = False
            self._account.suspect()
            self._reconcile_at = min(self._reconcile_at, time.monotonic() + ODD_RECONCILE_AFTER)

    async def _idle(self) -> None:
        """Sleep until there is reason for a round: an outcome, a notification, the next due job, or the poll."""
        self._heed_oddities()
        # However seldom the poll: the account, the progress and the proof that the database answers are not to wait for it.
        wake_at = self._reconcile_at
        if self._want() > 0:
            if self._lanes.unread:
                async with self._lock:
                    await self._due.look_up(await self._connected())
            wake_at = min(wake_at, self._due.next_at)
        if self._want() > 0 and self._pool.room(0) > 0:
            wake_at = min(wake_at, self._managed.due_at)
        if self._want() > 0:
            wake_at = min(wake_at, self._parked.due_at)
        if self._want() > 0:
            wake_at = min(wake_at, self._refused.due_at)
        if self._refused.closed_until > time.monotonic():
            wake_at = min(wake_at, self._refused.closed_until)
        if self._managed.left:
            wake_at = min(wake_at, time.monotonic() + CALL_EVERY)
        if not self._closed():
            wake_at = min(wake_at, self._pool.starts.due_at(self._pool.startable))
        self.ended.more.clear()
        if self.ended.writable or ((self._more or self._lanes.unread) and self._want() > 0):
            # Told of while that was looked up.
            return
        self._attempts.since = None
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
        self._attempts.asked()
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("advance")
        return self._connection

    async def _reconcile(self) -> None:
        """Read the queues' rules again, write progress, and give back claims that no runner here has."""
        self._delivery.deliver()
        async with self._lock:
            connection = await self._connected()
            await self._attempt("read the queues", self._read_rules(connection), connection)
            await self._attempt("write progress", self._account.write_progress(connection), connection)
            await self._attempt("look for parked jobs", self._parked.look(connection), connection)
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
        if self._account.behind:
            self._reconcile_at = min(self._reconcile_at, time.monotonic() + PROGRESS_INTERVAL)

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
        """Tell whether no served queue has a job that is due, and no worker is running one."""
        deferred = self.ended.deferred
        if len(self.ended) > len(deferred) or not deferred.tried or self._pool.held:
            return False
        await self._reconcile()
        if self._parked.due_at <= time.monotonic() and self._want() > 0:
            await self._claim_parked()
        if self.ended.setbacks or self._more or self._pool.held:
            return False
        async with self._lock:
            rows = await fetch(
                await self._connected(),
                self._schema,
                "drained",
                queues=list(self._options.queues) if self._options.queues is not None else None,
                leaving=[*self._refused.ids, *(id_ for id_, *_ in self.ended.deferred.names())],
            )
        if not rows[0][0]:
            self._survey.told_of_many()
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
